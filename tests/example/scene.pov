// An acoustic guitar and a drum kit in a room, for `python -m tests.example`. One unit is 10 cm; x is right, y is up
// and z is away from the camera. It uses no include file.
#version 3.7;

global_settings {
  assumed_gamma 1
  radiosity { pretrace_end 0.01 count 120 nearest_count 8 error_bound 0.5 recursion_limit 2 brightness 1 }
}

camera { location <0.4, 11, -29> look_at <0.1, 5.9, 0> right x * 4 / 3 up y angle 43.5 }

// Daylight from a wide window on the left, a lamp behind the camera, and sun through panes high in the left wall.
light_source { <-30, 26, -26> rgb <0.94, 0.97, 1.0> * 0.95 area_light <7, 0, -7>, <0, 12, 0>, 7, 7
  adaptive 1 jitter circular orient }
light_source { <22, 24, -34> rgb <1.0, 0.86, 0.70> * 0.28 area_light <8, 0, 0>, <0, 8, 0>, 4, 4 adaptive 1 jitter }
light_source { <-93, 58.3, -80> rgb <1.0, 0.80, 0.54> * 1.25 area_light <0.6, 0, -0.6>, <0, 0.8, 0>, 4, 4
  adaptive 1 jitter circular orient }
difference {
  box { <-42.5, -1, -90>, <-42, 90, 90> }
  #declare N = 0;
  #while (N < 6)
    box { <-43, 0, 0>, <-41, 3.1, 3.0> translate <0, 21.2 + 3.5 * div(N, 2), -31.9 + 3.5 * mod(N, 2)> }
    #declare N = N + 1;
  #end
  pigment { rgb 0.4 } finish { ambient 0 diffuse 0.6 }
}
// What chrome and lacquer reflect: the bright window, a dark room around it.
box { <-40, 14, -60>, <-39.5, 40, -8> pigment { rgb 1 } finish { ambient 0 emission 1.5 } no_image no_shadow
  no_radiosity }
sky_sphere { pigment { gradient y color_map { [0 rgb 0.05] [0.15 rgb 0.16] [0.5 rgb <0.34, 0.36, 0.40>] [1 rgb 0.5] } }
}

// --- Materials

#declare Chrome = texture {
  pigment { rgb <0.72, 0.73, 0.75> }
  finish { ambient 0 diffuse 0.25 specular 0.9 roughness 0.004 metallic reflection { 0.55 metallic } }
};
#declare Rubber = texture { pigment { rgb 0.02 } finish { ambient 0 diffuse 0.8 specular 0.2 roughness 0.05 } };
#declare Ebony = texture { pigment { rgb <0.035, 0.025, 0.02> }
  finish { ambient 0 diffuse 0.8 specular 0.35 roughness 0.02 } };
#declare Ivory = texture { pigment { rgb <0.86, 0.80, 0.66> }
  finish { ambient 0 diffuse 0.8 specular 0.3 roughness 0.02 } };
#declare Gloss = finish { ambient 0 diffuse 0.75 specular 0.5 roughness 0.006 reflection { 0.02, 0.22 fresnel }
  conserve_energy };
#declare Mahogany = texture {
  pigment { wood turbulence 0.08 scale <0.12, 0.12, 3> rotate x * 88
    color_map { [0 rgb <0.20, 0.07, 0.03>] [1 rgb <0.10, 0.032, 0.014>] } }
  finish { Gloss }
};
#declare Brass = texture {
  pigment { radial frequency 24 color_map { [0 rgb <0.80, 0.58, 0.22>] [0.5 rgb <0.90, 0.68, 0.30>]
    [1 rgb <0.80, 0.58, 0.22>] } }
  normal { onion 0.12 frequency 5 scallop_wave }
  finish { ambient 0 diffuse 0.42 brilliance 2 specular 0.9 roughness 0.03 metallic reflection { 0.34 metallic } }
};
#declare Shell = texture {
  pigment { bozo scale 0.02 color_map { [0 rgb <0.36, 0.012, 0.02>] [1 rgb <0.27, 0.006, 0.012>] } }
  finish { Gloss specular 0.8 }
};
#declare Skin = texture {
  pigment { bozo scale 1.2 turbulence 0.5 color_map { [0 rgb <0.88, 0.86, 0.81>] [1 rgb <0.83, 0.80, 0.74>] } }
  finish { ambient 0 diffuse 0.85 specular 0.12 roughness 0.05 }
};

#macro Rod(A, B, R) cylinder { A, B, R } sphere { A, R } sphere { B, R } #end

// --- The room

#declare Dice = seed(7);
// Floor: boards of different lengths and shades.
#declare Row = 0;
#while (Row < 46)
  #declare Right = -34 - 14 * rand(Dice);
  #while (Right < 36)
    #declare Long = 9 + 9 * rand(Dice);
    #declare Shade = 0.75 + 0.5 * rand(Dice);
    box {
      <Right + 0.015, -0.3, 0.015>, <Right + Long - 0.015, 0, 1.085>
      texture {
        pigment {
          wood turbulence 0.12 octaves 3 scale <4, 0.16, 0.22> rotate x * 4
            translate <40 * rand(Dice), rand(Dice) * 9, rand(Dice) * 9>
          color_map { [0 rgb <0.36, 0.20, 0.10> * Shade] [0.7 rgb <0.29, 0.15, 0.07> * Shade]
            [1 rgb <0.22, 0.11, 0.05> * Shade] }
        }
        normal { bumps 0.03 scale <2, 0.1, 0.1> }
        finish { ambient 0 diffuse 0.8 specular 0.18 roughness 0.03 reflection { 0, 0.14 fresnel } conserve_energy }
      }
      translate z * (Row * 1.1 - 36)
      interior { ior 1.4 }
    }
    #declare Right = Right + Long;
  #end
  #declare Row = Row + 1;
#end
plane { y, -0.25 pigment { rgb 0.02 } finish { ambient 0 } }

// Wall, skirting board and a picture rail.
plane {
  z, 12

  texture {
    pigment { bozo scale 4 turbulence 0.7 color_map { [0 rgb <0.60, 0.61, 0.56>] [1 rgb <0.56, 0.57, 0.52>] } }
    normal { granite 0.05 scale 1.5 }
    finish { ambient 0 diffuse 0.8 }
  }
}
#declare Paint = texture { pigment { rgb <0.80, 0.78, 0.72> }
  finish { ambient 0 diffuse 0.8 specular 0.1 roughness 0.05 } };
union { box { <-60, 0, 11.8>, <60, 1.3, 12.1> } cylinder { <-60, 1.3, 11.9>, <60, 1.3, 11.9>, 0.1 } texture { Paint } }

// --- A drum: axis y from 0 to High, with hoops, lugs and rods

#macro Hoop(R, Y, M) difference { cylinder { y * (Y - 0.14), y * (Y + 0.14), R + 0.10 }
  cylinder { y * (Y - 1), y * (Y + 1), R - 0.02 } texture { M } } #end

#macro Drum(R, High, Lugs, HoopTexture)
  union {
    difference { cylinder { 0, y * High, R } cylinder { y * 0.02, y * (High + 1), R - 0.1 } texture { Shell }
      interior { ior 1.5 } }
    cylinder { y * (High - 0.01), y * (High + 0.05), R - 0.03 texture { Skin } }
    torus { R - 0.03, 0.06 translate y * (High + 0.02) texture { Chrome } }
    object { Hoop(R, High, HoopTexture) }
    object { Hoop(R, 0, HoopTexture) }
    #declare N = 0;
    #while (N < Lugs)
      union {
        box { <-0.10, High * 0.5 - 0.28, -0.18>, <0.10, High * 0.5 + 0.28, 0.02> }
        Rod(<0, 0.1, -0.15>, <0, High - 0.1, -0.15>, 0.035)
        box { <-0.07, -0.12, -0.24>, <0.07, 0.12, -0.05> }
        box { <-0.07, High - 0.12, -0.24>, <0.07, High + 0.12, -0.05> }
        translate z * -R
        rotate y * (N + 0.5) * 360 / Lugs
        texture { Chrome }
      }
      #declare N = N + 1;
    #end
  }
#end

// A cymbal of radius R at the origin.
#macro Cymbal(R)
  union {
    lathe {
      cubic_spline 9,
      <-0.1, 0.36>, <0, 0.36>, <0.12 * R, 0.33>, <0.20 * R, 0.20>, <0.24 * R, 0.14>, <0.6 * R, 0.07>, <R, -0.08>,
        <R, -0.10>, <R - 0.1, -0.13>
      texture { Brass }
    }
    cylinder { y * 0.2, y * 0.62, 0.05 texture { Chrome } }
    cylinder { y * 0.36, y * 0.46, 0.16 texture { Rubber } }
  }
#end

// A stand from the floor to the height High, with three legs.
#macro Stand(High)
  union {
    Rod(y * 0.6, y * High, 0.09)
    Rod(y * 0.6, y * High * 0.6, 0.13)
    cylinder { y * (High * 0.6 - 0.15), y * (High * 0.6 + 0.15), 0.2 }
    #declare N = 0;
    #while (N < 3)
      union { Rod(<0, 2.6, 0>, <0, 0.1, -2.0>, 0.07) Rod(<0, 1.0, 0>, <0, 1.0, -1.3>, 0.05) rotate y * (N * 120 + 25) }
      #declare N = N + 1;
    #end
    texture { Chrome }
  }
#end

#declare BassDrum = union {
  object { Drum(2.8, 4.4, 10, Shell) }
  difference { cylinder { y * 4.45, y * 4.47, 2.72 } cylinder { y * 4, y * 5, 2.45 } pigment { rgb 0.06 }
    finish { ambient 0 } }
  difference { cylinder { y * 4.45, y * 4.47, 0.72 } cylinder { y * 4, y * 5, 0.62 } translate <1.2, 0, -0.9>
    texture { Chrome } }
  cylinder { y * 4.44, y * 4.462, 0.63 translate <1.2, 0, -0.9> pigment { rgb 0.01 } finish { ambient 0 } }
};

#declare Kit = union {
  // The bass drum lies; its front head looks at the camera.
  object { BassDrum rotate -x * 90 translate <0, 2.95, 2.2> }
  union { Rod(<-2.6, 2.6, -1.2>, <-3.7, 0.1, -2.2>, 0.09) Rod(<2.6, 2.6, -1.2>, <3.7, 0.1, -2.2>, 0.09)
    texture { Chrome } }
  // Two toms on it.
  object { Drum(1.55, 2.1, 6, Chrome) rotate <-24, 0, 8> translate <-1.75, 6.2, 0.6> }
  object { Drum(1.68, 2.3, 6, Chrome) rotate <-24, 0, -8> translate <1.85, 6.2, 0.6> }
  union { Rod(<-0.2, 5.5, 0.4>, <-0.2, 7.2, 0.4>, 0.14) Rod(<0.2, 5.5, 0.4>, <0.2, 7.2, 0.4>, 0.14)
    Rod(<-1.2, 7.2, 0.5>, <1.2, 7.2, 0.5>, 0.1) texture { Chrome } }
  // Floor tom and snare.
  object { Drum(2.0, 3.7, 8, Chrome) rotate -x * 4 translate <4.4, 1.9, 1.6> }
  #declare N = 0;
  #while (N < 3)
    union { Rod(<0, 3.6, -2.15>, <0, 0.1, -2.15>, 0.07) rotate y * (N * 120 + 20) translate <4.4, 0, 1.6>
      texture { Chrome } }
    #declare N = N + 1;
  #end
  object { Drum(1.78, 1.4, 8, Chrome) rotate <-10, 0, 4> translate <-4.0, 4.5, 1.9> }
  object { Stand(4.4) translate <-4.0, 0, 1.9> }
  // Hi-hat, crash and ride.
  object { Stand(8.0) translate <-5.7, 0, 3.2> }
  object { Cymbal(1.8) rotate -x * 6 translate <-5.7, 7.9, 3.2> }
  object { Cymbal(1.8) rotate <180, 0, 0> rotate -x * 6 translate <-5.7, 7.75, 3.2> }
  object { Stand(11.4) translate <-3.1, 0, 4.6> }
  object { Cymbal(2.1) rotate <-24, 0, 10> translate <-3.1, 11.4, 4.6> }
  object { Stand(10.8) translate <4.6, 0, 4.8> }
  object { Cymbal(2.5) rotate <-26, 0, -10> translate <4.6, 10.8, 4.8> }
};

// --- The guitar: stands on the origin, its top faces the camera

#macro Body(S, From, To)
  prism {
    bezier_spline From, To, 32,
    <0, 0>, <1.3 * S, 0>, <2.0 * S, 0.6>, <2.0 * S, 1.55>,
    <2.0 * S, 1.55>, <2.0 * S, 2.3>, <1.22 * S, 2.5>, <1.22 * S, 3.1>,
    <1.22 * S, 3.1>, <1.22 * S, 3.5>, <1.46 * S, 3.65>, <1.46 * S, 4.15>,
    <1.46 * S, 4.15>, <1.46 * S, 4.65>, <0.95 * S, 4.95>, <0, 4.95>,
    <0, 4.95>, <-0.95 * S, 4.95>, <-1.46 * S, 4.65>, <-1.46 * S, 4.15>,
    <-1.46 * S, 4.15>, <-1.46 * S, 3.65>, <-1.22 * S, 3.5>, <-1.22 * S, 3.1>,
    <-1.22 * S, 3.1>, <-1.22 * S, 2.5>, <-2.0 * S, 2.3>, <-2.0 * S, 1.55>,
    <-2.0 * S, 1.55>, <-2.0 * S, 0.6>, <-1.3 * S, 0>, <0, 0>
    rotate -x * 90
  }
#end

#declare Grain = pigment { wood turbulence 0.04 scale <0.035, 8, 0.4>
  color_map { [0 rgb <0.74, 0.47, 0.20>] [1 rgb <0.69, 0.42, 0.17>] } };
#declare Burst = texture {
  pigment {
    spherical scale <2.5, 2.9, 3> translate <0, 2.0, -1.05>
    pigment_map {
      [0.00 rgb <0.05, 0.015, 0.008>]
      [0.16 rgb <0.16, 0.045, 0.012>]
      [0.34 wood turbulence 0.04 scale <0.035, 8, 0.4>
        color_map { [0 rgb <0.62, 0.28, 0.08>] [1 rgb <0.57, 0.25, 0.07>] }]
      [0.55 Grain]
      [1.00 Grain]
    }
  }
  finish { Gloss }
};

#declare Guitar = union {
  difference {
    union {
      object { Body(1, 0, 1.0) texture { Mahogany } interior { ior 1.5 } }
      object { Body(0.985, 0.5, 1.04) texture { Burst } interior { ior 1.5 } }
    }
    cylinder { <0, 3.3, -2>, <0, 3.3, -0.3>, 0.5 texture { pigment { rgb <0.06, 0.035, 0.02> } finish { ambient 0 } } }
  }
  difference { object { Body(1.012, 0.94, 1.035) } object { Body(0.98, 0.5, 2) } texture { Ivory } }
  difference { object { Body(1.012, 0, 0.06) } object { Body(0.98, -1, 2) } texture { Ivory } }
  // Rosette, pick guard, bridge and saddle.
  #declare N = 0;
  #while (N < 4)
    difference {
      cylinder { <0, 3.3, -1.0>, <0, 3.3, -1.045 - N * 0.0005>, 0.70 - N * 0.045 }
      cylinder { <0, 3.3, -3>, <0, 3.3, 0>, 0.675 - N * 0.045 }
      texture { #if (mod(N, 2)) Ivory #else Ebony #end }
    }
    #declare N = N + 1;
  #end
  difference {
    cylinder { <0.55, 2.6, -1.0>, <0.55, 2.6, -1.052>, 0.72 }
    cylinder { <0, 3.3, -3>, <0, 3.3, 0>, 0.72 }
    box { <-3, 0, -3>, <0.30, 9, 3> }
    texture { pigment { bozo scale 0.15 turbulence 1
      color_map { [0.3 rgb <0.03, 0.012, 0.006>] [1 rgb <0.20, 0.07, 0.02>] } } finish { Gloss } }
    interior { ior 1.5 }
  }
  union { box { <-0.78, 1.32, -1.14>, <0.78, 1.60, -1.0> }
    cylinder { <-0.78, 1.46, -1.04>, <0.78, 1.46, -1.04>, 0.14 } texture { Ebony } }
  box { <-0.38, 1.52, -1.22>, <0.38, 1.555, -1.1> texture { Ivory } }
  // Neck, fingerboard, frets and dots: the nut is at y = 8.05, the saddle at 1.54.
  intersection {
    cone { <0, 3.8, -1.0>, 0.28, <0, 8.2, -1.0>, 0.22 }
    box { <-1, 3.8, -1.03>, <1, 8.15, 0> }
    texture { Mahogany } interior { ior 1.5 }
  }
  prism { linear_sweep linear_spline -0.06, 0.05, 5, <-0.28, 3.78>, <0.28, 3.78>, <0.22, 8.05>, <-0.22, 8.05>,
    <-0.28, 3.78> rotate -x * 90 translate -z * 1.07 texture { Ebony } }
  #declare N = 1;
  #while (N < 20)
    #declare FretY = 1.54 + 6.51 / pow(2, N / 12);
    cylinder { <-0.26, FretY, -1.12>, <0.26, FretY, -1.12>, 0.013 texture { Chrome } }
    #if (N = 3 | N = 5 | N = 7 | N = 9 | N = 15)
      cylinder { <0, FretY + 0.12, -1.0>, <0, FretY + 0.12, -1.123>, 0.045 texture { Ivory } }
    #end
    #declare N = N + 1;
  #end
  box { <-0.23, 8.04, -1.16>, <0.23, 8.09, -0.95> texture { Ivory } }
  union {
    prism {
      bezier_spline 0, 0.16, 20,
      <-0.22, 8.08>, <-0.25, 8.3>, <-0.38, 8.3>, <-0.40, 8.5>, <-0.40, 8.5>, <-0.40, 8.9>, <-0.33, 9.6>, <-0.33, 9.72>,
      <-0.33, 9.72>, <-0.15, 9.82>, <0.15, 9.82>, <0.33, 9.72>, <0.33, 9.72>, <0.33, 9.6>, <0.40, 8.9>, <0.40, 8.5>,
      <0.40, 8.5>, <0.38, 8.3>, <0.22, 8.08>, <-0.22, 8.08>
      rotate -x * 90 texture { Mahogany } interior { ior 1.5 }
    }
    #declare N = 0;
    #while (N < 3)
      #declare PegY = 8.62 + N * 0.40;
      #declare Side = -1;
      #while (Side < 2)
        cylinder { <Side * 0.24, PegY, 0>, <Side * 0.24, PegY, -0.30>, 0.045 texture { Chrome } }
        cylinder { <Side * 0.3, PegY, 0.1>, <Side * 0.52, PegY, 0.1>, 0.03 texture { Chrome } }
        sphere { 0, 1 scale <0.13, 0.10, 0.05> translate <Side * 0.58, PegY, 0.1> texture { Chrome } }
        #declare Side = Side + 2;
      #end
      #declare N = N + 1;
    #end
    translate -y * 8.08 rotate x * 10 translate <0, 8.08, -0.98>
  }
  #declare N = 0;
  #while (N < 6)
    cylinder { <(N - 2.5) * 0.105, 1.54, -1.225>, <(N - 2.5) * 0.072, 8.07, -1.165>, 0.006 + 0.0016 * (5 - N)
      texture { #if (N < 4) Brass #else Chrome #end } }
    #declare N = N + 1;
  #end
};

#declare GuitarStand = union {
  Rod(<-0.9, 0.1, -0.9>, <-0.75, 1.5, -0.6>, 0.09)
  Rod(<0.9, 0.1, -0.9>, <0.75, 1.5, -0.6>, 0.09)
  Rod(<-0.75, 1.5, -1.35>, <-0.75, 1.5, 0.3>, 0.09)
  Rod(<0.75, 1.5, -1.35>, <0.75, 1.5, 0.3>, 0.09)
  Rod(<-0.75, 1.5, -1.35>, <-0.75, 1.85, -1.45>, 0.09)
  Rod(<0.75, 1.5, -1.35>, <0.75, 1.85, -1.45>, 0.09)
  Rod(<-0.75, 1.5, 0.3>, <0.75, 1.5, 0.3>, 0.09)
  Rod(<0, 1.5, 0.3>, <0, 4.8, 1.2>, 0.09)
  Rod(<0, 3.6, 0.9>, <0, 0.1, 2.6>, 0.09)
  texture { Rubber }
};

// A round rug under the kit.
#declare Rug = union {
  cylinder { 0, y * 0.08, 7.2 }
  texture {
    pigment { onion scale 1.8 color_map { [0 rgb <0.10, 0.12, 0.17>] [0.82 rgb <0.13, 0.15, 0.20>]
      [0.83 rgb <0.50, 0.44, 0.34>] [0.93 rgb <0.50, 0.44, 0.34>] [0.94 rgb <0.10, 0.12, 0.17>] } }
    normal { granite 0.5 scale 0.12 }
    finish { ambient 0 diffuse 0.7 }
  }
};

// A plant in a pot, which is silent.
#declare Plant = union {
  lathe {
    cubic_spline 9, <0.2, -0.1>, <1.0, 0>, <1.15, 0.6>, <1.35, 1.9>, <1.5, 1.95>, <1.52, 2.35>, <1.38, 2.4>,
      <1.3, 1.9>, <1.2, 1.5>
    pigment { bozo scale 0.5 turbulence 0.6 color_map { [0 rgb <0.50, 0.22, 0.12>] [1 rgb <0.42, 0.17, 0.09>] } }
    normal { granite 0.08 scale 0.6 }
    finish { ambient 0 diffuse 0.8 specular 0.08 roughness 0.08 }
  }
  cylinder { y * 1.9, y * 2.1, 1.34 pigment { granite scale 0.3 color_map { [0 rgb 0.02] [1 rgb <0.09, 0.06, 0.04>] } }
    finish { ambient 0 }
  }
  #declare N = 0;
  #while (N < 13)
    #declare Long = 3.6 + 3.4 * rand(Dice);
    sphere_sweep {
      b_spline 6, <0, -1, 0>, 0.30, <0, 0, 0>, 0.34, <0.1, Long * 0.35, 0>, 0.44, <0.35, Long * 0.7, 0>, 0.34,
        <0.8, Long, 0>, 0.03, <1.0, Long * 1.15, 0>, 0.01
      scale <1, 1, 0.22>
      rotate y * (360 * rand(Dice))
      rotate <10 * rand(Dice) - 5, 0, -3 - 9 * rand(Dice)>
      rotate y * (N * 137.5)
      translate <0.75 * cos(N * 2.4) * rand(Dice), 1.9, 0.75 * sin(N * 2.4) * rand(Dice)>
      texture {
        pigment { gradient y turbulence 0.35 scale 0.55
          color_map { [0 rgb <0.05, 0.15, 0.05>] [0.5 rgb <0.10, 0.24, 0.08>] [0.62 rgb <0.22, 0.34, 0.16>]
          [1 rgb <0.05, 0.15, 0.05>] } }
        finish { ambient 0 diffuse 0.8 specular 0.3 roughness 0.04 }
      }
    }
    #declare N = N + 1;
  #end
};
object { Plant translate <-3.4, 0, 7.6> }

object { Rug scale <1.05, 1, 0.8> translate <4.6, 0, 1.5> }
object { Kit rotate y * 14 translate <4.8, 0.08, 1.4> }
union {
  object { Guitar rotate x * 13 translate <0, 1.6, 0.35> }
  object { GuitarStand }
  scale 1.12
  rotate -y * 16
  translate <-6.2, 0, -3>
}

// Pictures: the frame with its truth, and a heat map laid over it with the outline of its mask.

const CANVAS_LEAST = 64;
const CANVAS_MOST = 512; // pixels, of either side
const OPACITY = 0.75; // as in the overlays of `avloc localize`, and so is the exponent of the heat
const CURVE = 1.5;
// Matplotlib's inferno at 0, 1/16, ... 1; between them it is close to straight.
const INFERNO = [
  [0, 0, 4], [11, 7, 36], [33, 12, 74], [61, 9, 101], [87, 16, 110], [113, 25, 110],
  [138, 34, 106], [163, 44, 97], [188, 55, 84], [210, 70, 68], [228, 90, 49], [241, 115, 29],
  [249, 142, 9], [252, 172, 17], [249, 203, 53], [242, 234, 105], [252, 255, 164],
];

const palette = Array.from({ length: 256 }, (_, level) => {
  const place = (level / 255) * (INFERNO.length - 1);
  const low = Math.min(Math.floor(place), INFERNO.length - 2);
  return INFERNO[low].map((value, channel) => value + (place - low) * (INFERNO[low + 1][channel] - value));
});

function loadImage(url) {
  const image = new Image();
  image.src = url;
  return image.decode().then(() => image);
}

// Heat in 0 to 1; the levels have one byte, or two with the low one first.
function decodeHeat({ width, height, bytes, levels }) {
  const stored = Uint8Array.from(atob(levels), (character) => character.charCodeAt(0));
  const top = 256 ** bytes - 1;
  const heats = Float32Array.from({ length: width * height }, (_, n) =>
    (bytes === 1 ? stored[n] : stored[2 * n] + 256 * stored[2 * n + 1]) / top);
  return { width, height, heats };
}

// The height of a heat map at which its mask begins: the slider's, or that of the protocol's rule.
function maskThreshold(heat, rule, fixed) {
  if (fixed !== null) return fixed;
  return rule === "half" ? 0.5 : heat.heats.slice().sort()[heat.heats.length >> 1];
}

// Where the pixels of a canvas lie between the cells of a map: cells are areas, the outer half cell is repeated.
function cellPlaces(pixels, cells) {
  return Array.from({ length: pixels }, (_, n) => {
    const place = Math.min(Math.max(((n + 0.5) * cells) / pixels - 0.5, 0), cells - 1);
    const low = Math.min(Math.floor(place), Math.max(cells - 2, 0));
    return { low, high: Math.min(low + 1, cells - 1), share: place - low };
  });
}

// The map at the size of a canvas, bilinear.
function growHeat({ width, height, heats }, columns, rows) {
  const grown = new Float32Array(columns * rows);
  const across = cellPlaces(columns, width);
  cellPlaces(rows, height).forEach((row, y) => {
    const upper = row.low * width, lower = row.high * width;
    across.forEach((column, x) => {
      const top = heats[upper + column.low] * (1 - column.share) + heats[upper + column.high] * column.share;
      const bottom = heats[lower + column.low] * (1 - column.share) + heats[lower + column.high] * column.share;
      grown[y * columns + x] = top * (1 - row.share) + bottom * row.share;
    });
  });
  return grown;
}

// As many pixels as the screen gives the canvas, so that thin lines stay whole.
function sizeCanvas(canvas, { width, height }) {
  const wanted = Math.min(Math.max(canvas.clientWidth * devicePixelRatio, CANVAS_LEAST), CANVAS_MOST);
  const scale = Math.min(wanted / width, CANVAS_MOST / height);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
}

// Calls `mark` for each pixel of a mask that has a neighbour outside, and for that neighbour. All around the picture is
// outside, so that the mask of everything has an edge and the mask of nothing has none.
function eachEdge(inside, columns, rows, mark) {
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const place = y * columns + x;
      if (!inside[place]) continue;
      let edge = false;
      for (const [dx, dy] of [[-1, 0], [1, 0], [0, -1], [0, 1]]) {
        const within = x + dx >= 0 && x + dx < columns && y + dy >= 0 && y + dy < rows;
        const neighbour = place + dy * columns + dx;
        if (within && inside[neighbour]) continue;
        if (within) mark(neighbour, false);
        edge = true;
      }
      if (edge) mark(place, true);
    }
  }
}

// A line that shows on any ground: bright just inside, dark just outside.
function outlineMask(pixels, inside, columns, rows, bright) {
  eachEdge(inside, columns, rows, (place, within) => {
    pixels.set(within ? bright : [0, 0, 0], 4 * place);
  });
}

function drawBoxes(context, boxes, { width, height }) {
  for (const [colour, line] of [["#000000", 4], ["#5ef28a", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    for (const [x0, y0, x1, y1] of boxes) {
      context.strokeRect(x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height);
    }
  }
}

function drawTruthMask(context, mask, { width, height }) {
  const scratch = Object.assign(document.createElement("canvas"), { width, height });
  const reader = scratch.getContext("2d");
  reader.imageSmoothingEnabled = false;
  reader.drawImage(mask, 0, 0, width, height);
  const read = reader.getImageData(0, 0, width, height).data;
  const inside = Uint8Array.from({ length: width * height }, (_, n) => read[4 * n] + read[4 * n + 1] + read[4 * n + 2] > 0);
  const image = context.getImageData(0, 0, width, height);
  outlineMask(image.data, inside, width, height, [94, 242, 138]);
  context.putImageData(image, 0, 0);
}

function drawTruth(context, canvas, picture) {
  if (picture.maskImage) drawTruthMask(context, picture.maskImage, canvas);
  drawBoxes(context, picture.boxes, canvas);
}

// Blend the colours of a map over its frame, the more opaque the hotter, and outline the mask.
function drawHeat(context, canvas, heat, view) {
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  const pixels = image.data;
  const grown = growHeat(heat, canvas.width, canvas.height);
  grown.forEach((hot, place) => {
    const colour = palette[Math.round(255 * hot)];
    const alpha = OPACITY * hot ** CURVE;
    for (let channel = 0; channel < 3; channel++) {
      pixels[4 * place + channel] += alpha * (colour[channel] - pixels[4 * place + channel]);
    }
  });
  if (view.mask) {
    const threshold = maskThreshold(heat, view.rule, view.fixed);
    const inside = Uint8Array.from(grown, (hot) => (view.comparison === ">" ? hot > threshold : hot >= threshold));
    outlineMask(pixels, inside, canvas.width, canvas.height, [255, 255, 255]);
  }
  context.putImageData(image, 0, 0);
}

// One canvas of a clip: the frame with its truth where `heat` is null, else the frame under that map.
function paint(canvas, picture, heat, view) {
  sizeCanvas(canvas, picture);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture.image, 0, 0, canvas.width, canvas.height);
  if (heat) drawHeat(context, canvas, heat, view);
  if (!heat || view.truth) drawTruth(context, canvas, picture);
}

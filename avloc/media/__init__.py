"""Decode and encode pictures, audio and video with Pillow and FFmpeg, as NumPy arrays, without torch.

Times are seconds on the container's timeline, shared by video and audio: 0 is the start of the file, whatever its
first time stamp. Unreadable files raise an `InputError` with the reason; the caller adds the file name.
"""

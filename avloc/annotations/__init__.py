"""Clip ids, published id lists, boxes, masks and labels."""

"""Drawn upper-GI images with exact boxes: teaching material for tests and the demo, no substitute for real frames."""

from gastrovl.data.synthetic.drawing import LESIONS, SITES, DrawnImage, draw_image
from gastrovl.data.synthetic.drawn_set import write_drawn_set

__all__ = ["LESIONS", "SITES", "DrawnImage", "draw_image", "write_drawn_set"]

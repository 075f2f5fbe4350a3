"""What a run shows of itself: lines, a bar, a picture, trackers, and scores on validation questions."""

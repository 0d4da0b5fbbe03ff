"""Tile sets: from folders of raw files to training data. scan -> pair -> split -> build -> audit -> load."""

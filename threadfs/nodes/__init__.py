"""What each path of the tree means: one small class per kind of path, and no FUSE in it."""

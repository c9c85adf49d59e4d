"""What vectors of images are compared with: classes, wordings, contexts, and the images that a pack knows."""

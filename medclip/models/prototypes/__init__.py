"""What vectors of images are compared with, the prototypes of answers: classes, wordings, contexts, known images."""

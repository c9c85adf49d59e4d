"""What a disk is asked: is it there, who may read it, who holds it, does it lie on a network, does it stand still."""

"""What a caption of a patch may say: claims within its agent's list, not too long, and said once."""

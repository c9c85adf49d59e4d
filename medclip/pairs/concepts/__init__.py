"""What images show, by clusters of their vectors that experts label."""

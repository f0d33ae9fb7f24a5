"""What a study's trials say: comparisons that know how sure they are, and what follows from them."""

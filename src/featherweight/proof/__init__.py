"""What can be proven of a drop, and how likely it is: no files, no models, no numpy."""

"""Online association of instances into tracks."""

"""What goes along with an export: scripts that run it and need nothing of this project."""

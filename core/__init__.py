"""Code that all other parts use: errors, command lines, files, images, plots, uploads to the Hub."""

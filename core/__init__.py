"""The ground floor that every other part shares: errors, command lines, files, images, figures, uploads to the Hub."""

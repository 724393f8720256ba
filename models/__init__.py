"""Model folders on disk, and weights in OpenCLIP's layout."""

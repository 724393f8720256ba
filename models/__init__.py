"""The ground floor that knows the model: its folder on disk, and weights in OpenCLIP's layout."""

"""The leakage audit: find pictures that are in more than one split or corpus."""

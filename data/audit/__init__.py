"""The leakage audit: pictures that stand in more than one split or corpus."""

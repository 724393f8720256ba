"""Speed, memory and exactness against peers; `results/` keeps what was measured, where and when."""

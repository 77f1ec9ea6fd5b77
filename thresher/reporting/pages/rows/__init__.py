"""What pages show of single rows: the pool that is read again, its map, and rows side by side."""

"""What a quantisation cost and gained. quality.py measures loss and bytes, speed.py time, table.py lays a record out for people."""

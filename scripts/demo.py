"""Counts, and keeps a chain of digests in memory: each line follows only from all the lines before it."""
import hashlib
import sys
import time

history = []
digest = b""
for step in range(1, 1_000_000):
    digest = hashlib.sha256(digest + step.to_bytes(8, "big")).digest()
    history.append(digest)
    print(f"step {step:4d}  {digest.hex()[:16]}  {len(history)} digests in memory", flush=True)
    if len(sys.argv) == 1:
        time.sleep(0.1)
    if len(sys.argv) > 1 and step == int(sys.argv[1]):
        break

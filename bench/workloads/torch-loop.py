"""PyTorch on a GPU: `torch-loop.py infer|train`. Says READY when it works, and on SIGUSR1 verifies, says PASS and ends."""
import os
import signal
import sys

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the same answer each time
import torch  # noqa: E402, which reads it

over = False


def end(*_):
    global over
    over = True


signal.signal(signal.SIGUSR1, end)
torch.manual_seed(1)
torch.use_deterministic_algorithms(True, warn_only=True)
model = torch.nn.Sequential(*[layer for _ in range(8) for layer in (torch.nn.Linear(4096, 4096), torch.nn.ReLU())]).cuda()
batch = torch.randn(64, 4096, device="cuda")
rounds = 0
if sys.argv[1] == "infer":
    with torch.no_grad():
        expected = model(batch)
        while not over:
            if not torch.equal(model(batch), expected):
                sys.exit("FAIL: another answer")
            if rounds == 0:
                print("READY", flush=True)
            rounds += 1
else:
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-5)
    first = last = None
    while not over:
        optimiser.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimiser.step()
        last = loss.item()
        first = last if first is None else first
        if rounds == 0:
            print("READY", flush=True)
        rounds += 1
    steps = {int(state["step"]) for state in optimiser.state.values()}
    if steps != {rounds} or not last <= first:
        sys.exit(f"FAIL: {rounds} steps, the optimiser counted {steps}; loss {first} to {last}")
print("PASS", flush=True)

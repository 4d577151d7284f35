"""Threads that each own 8 MiB and a counter. SIGUSR1: every thread checks its memory, then PASS or FAIL."""
import array
import hashlib
import random
import signal
import threading
import time

SIZE = 8 << 20
THREADS = 4


class Worker(threading.Thread):
    def __init__(self, index):
        super().__init__(name=f'worker-{index}', daemon=True)
        self.numbers = array.array('Q', random.Random(index).randbytes(SIZE))
        self.sum = hashlib.sha256(self.numbers).hexdigest()
        self.turn = threading.Condition()
        self.asked = self.answered = 0
        self.intact = True
        self.ticks = 0

    def run(self):
        while True:
            with self.turn:
                self.turn.wait_for(lambda: self.asked > self.answered, timeout=0.01)
                self.ticks += 1
                if self.asked == self.answered:
                    continue
                self.intact = hashlib.sha256(self.numbers).hexdigest() == self.sum
                self.answered = self.asked
                self.turn.notify_all()


def verify(workers):
    for worker in workers:
        with worker.turn:
            worker.asked += 1
            worker.turn.notify_all()
            worker.turn.wait_for(lambda: worker.answered == worker.asked)
    return all(worker.intact for worker in workers)


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
workers = [Worker(index) for index in range(THREADS)]
names = {worker.name: id(worker.numbers) for worker in workers}
for worker in workers:
    worker.start()
while not all(worker.ticks for worker in workers):
    time.sleep(0.001)
print('READY', flush=True)
signal.sigwait({signal.SIGUSR1})
same = names == {worker.name: id(worker.numbers) for worker in workers} and all(worker.is_alive() for worker in workers)
ticks = sum(worker.ticks for worker in workers)
print('PASS' if verify(workers) and same and ticks > 0 else 'FAIL: the arrays or threads are not the same', flush=True)

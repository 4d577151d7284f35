"""terminal.py ROWS COLUMNS COMMAND [ARG...]: runs COMMAND under a new terminal of that size.

Standard input is typed into it, its output is standard output, lines `ROWS COLUMNS` on descriptor 3 change its
size. Ends with the status of the command, 128+N when signal N ended it.
"""
import fcntl
import os
import pty
import select
import struct
import sys
import termios


def resize(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))


pid, master = pty.fork()
if pid == 0:
    resize(0, int(sys.argv[1]), int(sys.argv[2]))
    os.close(3)
    os.execvp(sys.argv[3], sys.argv[3:])

sources = [0, 3, master]
while True:
    ready, _, _ = select.select(sources, [], [])
    if master in ready:
        try:
            data = os.read(master, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            break
        if not data:
            break
        os.write(1, data)
    if 0 in ready:
        data = os.read(0, 65536)
        if data:
            os.write(master, data)
        else:
            sources.remove(0)
    if 3 in ready:
        data = os.read(3, 4096)
        if data:
            resize(master, *map(int, data.decode().splitlines()[-1].split()))
        else:
            sources.remove(3)

status = os.waitpid(pid, 0)[1]
sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))

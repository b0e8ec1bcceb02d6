/**
 * The tutorial's own programs, in Python, and what starts a program and takes note of what it prints. They
 * are as the tutorial has them, but for the port, which is an argument, and for msg[0] and msg[1], which
 * Python 3 has not.
 */
import { createServer } from "node:net";

/** One client after the other. */
export const SEQUENTIAL = `
import socket
import sys

HOST = ''   # Symbolic name meaning all available interfaces
PORT = int(sys.argv[1]) # Arbitrary non-privileged port

s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
print('Socket created')

try:
    s.bind((HOST, PORT))
except socket.error as msg:
    print('Bind failed. Error Code : ' + str(msg.errno) + ' Message ' + msg.strerror)
    sys.exit()

print('Socket bind complete')

s.listen(10)
print('Socket now listening')

#now keep talking with the client
while 1:
    #wait to accept a connection - blocking call
    conn, addr = s.accept()
    print('Connected with ' + addr[0] + ':' + str(addr[1]))

    data = conn.recv(1024)
    reply = b'OK...' + data
    if not data:
        break

    conn.sendall(reply)

conn.close()
s.close()
`;

/** A thread for each client. */
export const CONCURRENT = `
import socket
import sys
import _thread

HOST = ''   # Symbolic name meaning all available interfaces
PORT = int(sys.argv[1]) # Arbitrary non-privileged port

s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
print('Socket created')

#Bind socket to local host and port
try:
    s.bind((HOST, PORT))
except socket.error as msg:
    print('Bind failed. Error Code : ' + str(msg.errno) + ' Message ' + msg.strerror)
    sys.exit()

print('Socket bind complete')

#Start listening on socket
s.listen(10)
print('Socket now listening')

#Function for handling connections. This will be used to create threads
def clientthread(conn):
    #Sending message to connected client
    conn.send(b'Welcome to the server. Type something and hit enter\\n') #send only takes string

    #infinite loop so that function do not terminate and thread do not end.
    while True:

        #Receiving from client
        data = conn.recv(1024)
        reply = b'OK...' + data
        if not data:
            break

        conn.sendall(reply)

    #came out of loop
    conn.close()

#now keep talking with the client
while 1:
    #wait to accept a connection - blocking call
    conn, addr = s.accept()
    print('Connected with ' + addr[0] + ':' + str(addr[1]))

    #start new thread takes 1st argument as a function name to be run, second is the tuple of arguments to the function.
    _thread.start_new_thread(clientthread ,(conn,))

s.close()
`;

/** The tutorial's five steps of a client, on Python's own module: HOST PORT, and the reply on stdout. */
export const HTTP_CLIENT = `
import socket, sys
sock = socket.socket()
sock.connect((sys.argv[1], int(sys.argv[2])))
sock.send(b'GET / HTTP/1.1\\r\\nHost: ' + sys.argv[1].encode() + b':' + sys.argv[2].encode() + b'\\r\\nConnection: close\\r\\n\\r\\n')
while True:
    data = sock.recv(4096)
    if not data:
        break
    sys.stdout.buffer.write(data)
sock.close()
`;

/**
 * Sends every message on a connection of its own, reads each reply, then sends nothing on a last connection.
 */
export const SEQUENTIAL_CLIENT = `
import json, socket, sys
port, messages = int(sys.argv[1]), json.loads(sys.argv[2])
def connect():
    s = socket.create_connection(('127.0.0.1', port))
    socks.append(s)
    got.append(b'')
    return s
def read(i, count):
    while len(got[i]) < count:
        data = socks[i].recv(65536)
        if not data: break
        got[i] += data
socks, got = [], []
for message in messages:
    s = connect()
    s.sendall(message.encode())
    read(len(socks) - 1, 5 + min(1024, len(message)))
connect().shutdown(socket.SHUT_WR)
ports = [s.getsockname()[1] for s in socks]
for i in range(len(socks)):
    try: read(i, 1 << 30)
    except ConnectionResetError: pass # Of a connection that is closed before all is read, the kernel says so.
print(json.dumps({'ports': ports, 'got': [g.decode() for g in got]}))
`;

/** Several concurrent connections, which take turns; each is read to its end after a FIN. */
export const CONCURRENT_CLIENT = `
import json, socket, sys
port, rounds = int(sys.argv[1]), json.loads(sys.argv[2])
def read(i, count):
    got[i] += socks[i].recv(count - len(got[i]), socket.MSG_WAITALL)
WELCOME = len('Welcome to the server. Type something and hit enter\\n')
socks, got = [], []
for _ in rounds[0]:
    socks.append(socket.create_connection(('127.0.0.1', port)))
    got.append(b'')
    # Its place in the server's list of those that came.
    read(len(got) - 1, WELCOME)
for messages in rounds:
    for s, message in zip(socks, messages): s.sendall(message.encode())
    for i, message in reversed(list(enumerate(messages))):
        read(i, len(got[i]) + len(message) + 5 * -(-len(message) // 1024))
ports = [s.getsockname()[1] for s in socks]
for i, s in enumerate(socks):
    s.shutdown(socket.SHUT_WR)
    read(i, 1 << 20)
print(json.dumps({'ports': ports, 'got': [g.decode() for g in got]}))
`;

/** A client that throws its connection away, with a reset. */
export const RESET_CLIENT = `
import socket, struct, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
s.recv(1024)
s.sendall(b'never read')
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
s.close()
`;

/** Answers one request with what it was asked for and then all bytes there are, many times, and ends. */
export const HTTP_SERVER = `
import socket
s = socket.create_server(('127.0.0.1', 0))
print('Socket now listening')
print(s.getsockname()[1])
conn, _ = s.accept()
request = b''
while not request.endswith(b'\\r\\n\\r\\n'):
    request += conn.recv(1024)
conn.sendall(request + bytes(range(256)) * 20000)
conn.close()
`;

export interface Program {
  readonly pid: number;
  readonly port: number;
  /** All of stdout and stderr so far. */
  readonly stdout: string;
  readonly stderr: string;
  readonly child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  /** The exit code, once both outputs are read to their end. */
  readonly finished: Promise<number | null>;
}

const running = new Set<Program["child"]>();

/** Kills what a test has left running, and waits until it is gone. */
export async function killAll(): Promise<void> {
  const left = [...running];
  for (const child of left) child.kill("SIGKILL");
  await Promise.all(left.map(({ exited }) => exited));
}

/** Starts a server that says "Socket now listening", and waits for it; with port 0, for its port as well. */
async function tryStart(command: string[], port: number): Promise<Program> {
  const child = Bun.spawn([...command, String(port)], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  running.add(child);
  const text = { stdout: "", stderr: "" };
  const listening = Promise.withResolvers<number>();
  const ready = port === 0 ? /^Socket now listening\n(\d+)\n/m : /^Socket now listening\n/m;
  const gather = async (name: "stdout" | "stderr"): Promise<void> => {
    const decoder = new TextDecoder();
    for await (const bytes of child[name]) {
      text[name] += decoder.decode(bytes, { stream: true });
      const found = ready.exec(text.stdout);
      if (found !== null) listening.resolve(Number(found[1] ?? port));
    }
  };
  const finished = Promise.all([gather("stdout"), gather("stderr"), child.exited]).then(() => {
    running.delete(child);
    listening.reject(new Error(`did not start: ${text.stdout}${text.stderr}`));
    return child.exitCode;
  });
  return {
    pid: child.pid,
    port: await listening.promise,
    child,
    finished,
    get stdout() {
      return text.stdout;
    },
    get stderr() {
      return text.stderr;
    },
  };
}

/**
 * Starts a server.
 * @param port 0 leaves it to the server, undefined finds one: then the program need not be able to say its
 *   own
 */
export async function start(command: string[], port?: number): Promise<Program> {
  if (port !== undefined) return tryStart(command, port);
  // Between our finding a port and the program's taking it, somebody else may have it.
  for (let left = 5; ; left--) {
    try {
      return await tryStart(command, await freePort());
    } catch (error) {
      if (left === 0 || !(error as Error).message.includes("Bind failed")) throw error;
    }
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, () => resolve()));
  const { port } = server.address() as { port: number };
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

export interface Finished {
  code: number | null;
  stdout: Buffer;
  stderr: string;
}

/** Runs a program to its end. */
export async function run(command: string[]): Promise<Finished> {
  const child = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  running.add(child);
  const [stdout, stderr] = await Promise.all([child.stdout.bytes(), child.stderr.text(), child.exited]);
  running.delete(child);
  return { code: child.exitCode, stdout: Buffer.from(stdout), stderr };
}

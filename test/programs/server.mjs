// A web server with state in the main thread, a worker thread that counts, a timer and a promise that is far from done. Its port stands in `port`.
import { renameSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { Worker } from 'node:worker_threads'

const shared = new Int32Array(new SharedArrayBuffer(8))
const worker = new Worker(
  `const { workerData, parentPort } = require('node:worker_threads')
   setInterval(() => Atomics.add(workerData, 0, 1), 5)
   parentPort.on('message', (text) => parentPort.postMessage(text.toUpperCase()))`,
  { eval: true, workerData: shared },
)
let ticks = 0
setInterval(() => ticks++, 5)
const visits = new Map()
const answers = []
worker.on('message', (text) => answers.shift()?.(text))
const shout = (text) => new Promise((resolve) => (answers.push(resolve), worker.postMessage(text)))

const server = createServer({ keepAliveTimeout: 600_000 }, async (request, response) => {
  const name = request.url ?? '/'
  visits.set(name, (visits.get(name) ?? 0) + 1)
  response.end(JSON.stringify({ visits: Object.fromEntries(visits), ticks, worker: Atomics.load(shared, 0), shouted: await shout(name) }))
})
server.listen(0, '127.0.0.1', () => {
  writeFileSync('port.tmp', String(server.address().port))
  renameSync('port.tmp', 'port')
  console.log('READY')
})

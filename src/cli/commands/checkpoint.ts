import type { CheckpointView } from '../../daemon/api/engine.js'
import type { CliCommand } from '../command.js'
import { checkpointArgument, checkpointOf, latestCheckpoint, latestFlag, type LatestFlag } from '../latest.js'
import { printListing, type Listing } from '../render/listing.js'
import { formatSize, formatTime } from '../render/units.js'
import { absolute, checkpointName, listFlags, outputFlags } from '../shared-flags.js'
import { checkpointInspect } from './checkpoint-inspect.js'

const checkpointListing = (checkpoints: readonly CheckpointView[], jid: string): Listing<CheckpointView> => ({
  items: [...checkpoints].sort((a, b) => b.time - a.time),
  columns: [
    { header: 'id', cell: (one) => ({ text: one.id }) },
    { header: 'time', cell: (one) => ({ text: formatTime(one.time) }), order: (one) => one.time },
    { header: 'size', align: 'right', cell: (one) => ({ text: formatSize(one.size) }), order: (one) => one.size },
    { header: 'path', cell: (one) => ({ text: one.path, colour: one.exists ? undefined : 'grey' }) },
  ],
  wide: [
    { header: 'job', cell: (one) => ({ text: one.jid }) },
    { header: 'type', cell: (one) => ({ text: one.type, colour: 'cyan' }) },
    { header: 'compression', cell: (one) => ({ text: one.compression }) },
    { header: 'exists', cell: (one) => (one.exists ? { text: 'yes' } : { text: 'no', colour: 'red' }) },
  ],
  id: (one) => one.id,
  none: jid === '' ? 'No checkpoints found' : `No checkpoints found for job ${jid}`,
  hints: ['Use `inspect <checkpoint-id>` to inspect a checkpoint.'],
})

export function checkpointList(command: CliCommand): void {
  latestFlag(listFlags(command.argument('[JID]', 'job id; not said: all jobs')), 'only the checkpoint that was made last')
    .example('cedana checkpoints train', 'cedana checkpoints -o wide')
    .does<LatestFlag>(async (session, { latest = false }, [jid = '']) => {
      const checkpoints = await session.ask((engine) => engine.listCheckpoints(jid, { signal: session.signal }))
      await printListing(session, checkpointListing(latest ? latestCheckpoint(checkpoints) : checkpoints, jid))
    })
}

export function checkpoint(command: CliCommand): void {
  const list = command.add('list', 'list checkpoints')
  list.alias('ls')
  checkpointList(list)
  checkpointInspect(command.add('inspect', 'show what is in a checkpoint: processes, open files, memory, sockets'))

  outputFlags(checkpointArgument(command.add('verify', 'read a checkpoint and compare it with its checksums')))
    .example('cedana checkpoint verify 4be1')
    .does<LatestFlag>(async (session, flags, [name]) => {
      const id = await checkpointOf(session, name, flags)
      const result = await session.ask((engine) => engine.verifyCheckpoint(id, { signal: session.signal }))
      if (session.isStructured) return session.printDocument(result, session.format!)
      session.print(
        session.options.quiet === true
          ? result.path
          : `Verified ${result.path}: ${result.files} files, ${formatSize(result.bytes) || '0 bytes'}`,
      )
    })

  const file = 'new file; its name says how it is compressed: .tar, .tar.gz or .tar.zst'
  outputFlags(
    command
      .add('export', 'write a checkpoint of a container as the archive that podman, CRI-O, containerd and checkpointctl know')
      .argument('<CHECKPOINT>', 'checkpoint id, the beginning of one, or a path')
      .argument('<FILE>', file),
    { alias: false },
  )
    .choice('--format <FORMAT>', 'the archive itself (tar), or an OCI image of it, for registries (oci-archive)', ['tar', 'oci-archive'])
    .option('--image <NAME>', 'name of the image in an OCI archive (default: localhost/checkpoint-CONTAINER:latest)')
    .example(
      'cedana checkpoint export 4be1 web.tar.zst',
      'podman container restore --import web.tar.zst',
      'cedana checkpoint export --format oci-archive --image registry.local/web:moved 4be1 web.tar',
      'skopeo copy oci-archive:web.tar docker://registry.local/web:moved',
    )
    .does<{ readonly format?: string; readonly image?: string }>(async (session, { format = 'tar', image = '' }, [name = '', path]) => {
      const request = { id: checkpointName(session.world, name), path: absolute(session.world, path), format, image }
      const result = await session.ask((engine) => engine.exportCheckpoint(request, { signal: session.signal }))
      if (session.isStructured) return session.printDocument(result, session.format!)
      session.print(session.options.quiet === true ? result.path : `Exported to ${result.path} (${formatSize(result.size)})`)
    })

  outputFlags(checkpointArgument(command.add('delete', 'remove a checkpoint from disk and from its job').alias('rm')))
    .example('cedana checkpoint delete 4be1')
    .does<LatestFlag>(async (session, flags, [name]) => {
      const id = await checkpointOf(session, name, flags)
      const result = await session.ask((engine) => engine.deleteCheckpoint(id, { signal: session.signal }))
      if (session.isStructured) return session.printDocument(result, session.format!)
      session.print(session.options.quiet === true ? result.path : `Deleted ${result.path}`)
    })
}

/** The reference of the command line as Markdown, and as man pages: made from the tree itself, so that it is never behind. */
import type { KeyDescription } from '../../daemon/config.js'
import type { CliCommand } from '../command.js'
import { EXIT } from '../exit-codes.js'
import { wrap } from '../render/wrap.js'

interface Page {
  readonly name: string
  readonly text: string
}

const EXIT_CODES: readonly (readonly [code: number, meaning: string])[] = [
  [EXIT.ok, 'success'],
  [EXIT.error, 'any error'],
  [EXIT.usage, 'misuse of the command line'],
  [EXIT.dumped, 'attached: the job was dumped; it can be restored'],
  [EXIT.detached, 'attached: detached by Ctrl-C or the detach keys; the job goes on'],
  [EXIT.closed, 'attached: whoever read the output went away; the job goes on'],
]
const OWN_CODE = 'attach, --attach and --no-server end with the exit code of the job itself; 128 + N when signal N ended it.'

interface Described {
  readonly command: CliCommand
  readonly path: string
  readonly usage: string
  readonly own: readonly Term[]
  /** The command whose flags it takes too, besides those of every command. */
  readonly flagsOf: string | undefined
  readonly arguments: readonly Term[]
}
interface Term {
  readonly term: string
  readonly text: string
}

const alsoSpelled = (spellings: readonly string[]): string[] => (spellings.length === 0 ? [] : [`(also ${spellings.join(', ')})`])

function describe(command: CliCommand): Described {
  const help = command.createHelp()
  const term = (option: Parameters<typeof help.optionTerm>[0]): Term => ({
    term: help.optionTerm(option),
    text: [help.optionDescription(option), ...alsoSpelled(command.spellingsOf(option))].join(' '),
  })
  const options = help.visibleOptions(command).filter(({ long }) => long !== '--help')
  const parent = command.parent as CliCommand | null
  const hasGroup = parent !== null && parent.parent !== null && parent.options.some((option) => !parent.isInherited(option))
  return {
    command,
    path: command.path(),
    usage: help.commandUsage(command),
    own: options.filter((option) => !command.isInherited(option)).map(term),
    flagsOf: hasGroup ? parent.path() : undefined,
    arguments: help.visibleArguments(command).map((one) => ({ term: help.argumentTerm(one), text: help.argumentDescription(one) })),
  }
}

function* leaves(command: CliCommand): Generator<CliCommand> {
  yield command
  for (const child of command.visibleCommands()) yield* leaves(child)
}

// Markdown

const escape = (text: string): string => text.replace(/([|<>*_])/g, '\\$1')
const rows = (head: string, terms: readonly Term[]): string =>
  terms.length === 0
    ? ''
    : `\n| ${head} | |\n|---|---|\n${terms.map(({ term, text }) => `| \`${term.replaceAll('|', '\\|')}\` | ${escape(text)} |\n`).join('')}`

function section({ command, path, usage, own, flagsOf, arguments: args }: Described): string {
  const aliases = command.aliases().length > 0 ? `\nAlso: \`${command.aliases().join('`, `')}\`\n` : ''
  const examples = command.examples.length > 0 ? `\n\`\`\`sh\n${command.examples.join('\n')}\n\`\`\`\n` : ''
  const more = [...(flagsOf === undefined ? [] : [`And the flags of \`${flagsOf}\`.`]), ...command.notes.map(escape)]
    .map((text) => `\n${text}\n`)
    .join('')
  return `## ${path}\n\n${command.description()}\n\n\`${usage}\`\n${aliases}${rows('Argument', args)}${rows('Flag', own)}${more}${examples}`
}

const PRECEDENCE = 'A value comes from, the last wins: the default, the file, the environment, --config, a flag of its own.'
const RELOAD = 'A running daemon that is told to read it again (`cedana daemon reload`, SIGHUP) has at once'

/** One page for each command of the first level, one for the configuration, and an index. */
export function markdownPages(root: CliCommand, keys: readonly KeyDescription[]): Page[] {
  const page = (top: CliCommand): Page => ({
    name: `${top.name()}.md`,
    text: `# cedana ${top.name()}\n\n${[...leaves(top)].map((one) => section(describe(one))).join('\n')}`,
  })
  const tops = root.visibleCommands()
  const index = tops.map((top) => `| [${top.name()}](${top.name()}.md) | ${escape(top.description())} |\n`).join('')
  const codes = EXIT_CODES.map(([code, meaning]) => `| ${code} | ${meaning} |\n`).join('')
  const settings = keys.map(
    ({ name, type, default: value, variables, description }) =>
      `| \`${name}\` | ${escape(description)} | ${escape(type)} | \`${JSON.stringify(value)}\` | ${variables.map((one) => `\`${one}\``).join(' ')} |\n`,
  )
  const changeable = keys.filter(({ isChangeable }) => isChangeable).map(({ name }) => `\`${name}\``)
  return [
    {
      name: 'README.md',
      text: `# Commands\n\nMade by \`cedana docs-gen\` from the commands themselves.\n\n| Command | |\n|---|---|\n${index}\nSee also the [configuration](configuration.md).\n\n## Flags of every command\n${rows('Flag', describe(root).own)}\n## Exit codes\n\n| Code | Meaning |\n|---|---|\n${codes}\n${escape(OWN_CODE)}\n`,
    },
    {
      name: 'configuration.md',
      text: `# Configuration\n\n${PRECEDENCE}\n\n| Key | Meaning | Value | Default | Environment |\n|---|---|---|---|---|\n${settings.join('')}\n${RELOAD}: ${changeable.join(', ')}.\n`,
    },
    ...tops.map(page),
  ]
}

// man(7)

/** Of the last change to what the pages say beyond flags and keys; man pages must have one. */
const DATE = '2026-11-27'

const literal = (text: string): string =>
  text
    .replace(/\\/g, '\\e')
    .replace(/-/g, '\\-')
    .replace(/…/g, '...')
    .replace(/^([.'])/gm, '\\&$1')
/** Running text, in lines that the page's own source is read in. */
const roff = (text: string): string => literal(wrap(text, 72).join('\n'))
const terms = (list: readonly Term[]): string => list.map(({ term, text }) => `.TP\n.B ${literal(term)}\n${roff(text)}\n`).join('')
const preformatted = (lines: readonly string[]): string => `.PP\n.nf\n.RS\n${lines.map(literal).join('\n')}\n.RE\n.fi\n`
const pageOf = (top: CliCommand): string => `cedana-${top.name()}`

function manPage(name: string, section: number, summary: string, parts: readonly string[]): Page {
  const head = `.TH ${literal(name.toUpperCase())} ${section} ${DATE}\n.SH NAME\n${literal(name)} \\- ${literal(summary)}\n`
  return { name: `${name}.${section}`, text: head + parts.join('') }
}
const seeAlso = (...pages: readonly (readonly [name: string, section: number])[]): string =>
  `.SH SEE ALSO\n${pages.map(([name, section], index) => `.BR ${literal(name)} (${section})${index < pages.length - 1 ? ',' : ''}\n`).join('')}`

/** What a page or a part of one says of a command. */
function manBody({ command, own, flagsOf, arguments: args }: Described): string {
  const aliases = command.aliases().length > 0 ? [`Also: ${command.aliases().join(', ')}.`] : []
  const more = [...(flagsOf === undefined ? [] : [`And the flags of ${flagsOf}.`]), ...command.notes, ...aliases]
  const examples = command.examples.length > 0 ? `.PP\nExamples:\n${preformatted(command.examples)}` : ''
  return `${terms([...args, ...own])}${more.map((text) => `.PP\n${roff(text)}\n`).join('')}${examples}`
}

function manSection(described: Described): string {
  const { command, path, usage } = described
  return `.SS ${literal(path)}\n${roff(`${command.description()}.`)}\n.PP\n.B ${literal(usage)}\n${manBody(described)}`
}

function commandPage(top: CliCommand): Page {
  const described = describe(top)
  const subs = [...leaves(top)].slice(1).map((command) => manSection(describe(command)))
  return manPage(pageOf(top), 1, top.description(), [
    `.SH SYNOPSIS\n.B ${literal(described.usage)}\n`,
    `.SH OPTIONS\n${manBody(described)}.PP\n${roff('Flags of every command, and exit codes, are in cedana(1).')}\n`,
    subs.length > 0 ? `.SH COMMANDS\n${subs.join('')}` : '',
    seeAlso(['cedana', 1], ['cedana.json', 5]),
  ])
}

function configurationPage(keys: readonly KeyDescription[]): Page {
  const settings = keys.map(({ name, description, type, default: value, variables, isChangeable }) => ({
    term: name,
    text: `${description}; ${type}; default ${JSON.stringify(value)}; environment ${variables.join(', ')}${isChangeable ? '; changes at a reload' : ''}`,
  }))
  return manPage('cedana.json', 5, 'configuration of cedana', [
    '.SH SYNOPSIS\n.I /etc/cedana/config.json\n.br\n.I \\(ti/.config/cedana/config.json\n',
    `.SH DESCRIPTION\n${roff(`A JSON object; a key such as checkpoint.dir is the member dir of the object checkpoint. The second file is of users other than root, who go on with the first where there is none; --config-dir and CEDANA_CONFIG_DIR name another directory. ${PRECEDENCE}`)}\n`,
    `.PP\n${roff('A daemon reads it at its start. When it is told to read it again (cedana daemon reload, SIGHUP), some keys change at once, and others wait for its next start.')}\n`,
    `.SH KEYS\n${terms(settings)}`,
    `.SH EXAMPLES\n${preformatted(['{', '  "checkpoint": { "dir": "/var/lib/checkpoints", "compression": "zstd" },', '  "jobs": { "on_stop": "leave" }', '}'])}`,
    seeAlso(['cedana', 1], ['cedana-daemon', 1]),
  ])
}

/** One page for the program, one for each command of the first level, one for the configuration. */
export function manPages(root: CliCommand, keys: readonly KeyDescription[]): Page[] {
  const tops = root.visibleCommands()
  const codes = EXIT_CODES.map(([code, meaning]) => ({ term: String(code), text: meaning }))
  const program = manPage('cedana', 1, 'checkpoint and restore of running processes and containers', [
    '.SH SYNOPSIS\n.B cedana\n[\\fIglobal options\\fR] \\fIcommand\\fR [\\fIoptions\\fR] [\\fIarguments\\fR]\n',
    `.SH DESCRIPTION\n${roff(root.description())}\n`,
    `.SH GLOBAL OPTIONS\n${terms(describe(root).own)}`,
    `.SH COMMANDS\n${terms(tops.map((top) => ({ term: top.name(), text: `${top.description()}: see ${pageOf(top)}(1)` })))}`,
    `.SH EXIT STATUS\n${terms(codes)}.PP\n${roff(OWN_CODE)}\n`,
    '.SH FILES\n.TP\n.I /etc/cedana/config.json\nthe configuration, see cedana.json(5)\n.TP\n.I /run/cedana.sock\nsocket of the daemon\n',
    seeAlso(['cedana.json', 5], ...tops.map((top) => [pageOf(top), 1] as const), ['criu', 8]),
  ])
  return [program, ...tops.map(commandPage), configurationPage(keys)]
}

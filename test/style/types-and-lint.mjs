// What the compiler and the linter have to say, each of them once. Both ask for the types of everything: of one program these are worked out once.
import { ESLint } from 'eslint'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
process.chdir(root)

const host = { ...ts.sys, onUnRecoverableConfigFileDiagnostic: fail }
function fail(diagnostic) {
  throw new Error(ts.flattenDiagnosticMessageText(diagnostic.messageText, '\n'))
}
const { fileNames, options, errors } = ts.getParsedCommandLineOfConfigFile(join(root, 'tsconfig.json'), undefined, host)
const program = ts.createProgram(fileNames, options)
const diagnostics = [...errors, ...ts.getPreEmitDiagnostics(program)]
const names = { getCanonicalFileName: (name) => name, getCurrentDirectory: () => root, getNewLine: () => '\n' }
process.stdout.write(ts.formatDiagnostics(diagnostics, names))

const eslint = new ESLint({
  cwd: root,
  overrideConfigFile: join(root, 'test/style/eslint.config.js'),
  overrideConfig: [{ files: ['**/*.ts'], languageOptions: { parserOptions: { projectService: false, programs: [program] } } }],
})
const results = await eslint.lintFiles(['src', 'addon', 'test', 'bench'])
const { format } = await eslint.loadFormatter('stylish')
process.stdout.write(await format(results))

const isClean = diagnostics.length === 0 && results.every(({ messages }) => messages.length === 0)
process.exitCode = isClean ? 0 : 1

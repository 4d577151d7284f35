// What test/style/types-and-lint.mjs judges by.
import { defineConfig } from 'eslint/config'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import typescript from 'typescript-eslint'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

const ENVIRONMENT = {
  selector: 'MemberExpression[object.name=process][property.name=env]',
  message: 'The environment is read in config.ts and handed in by the entry points; nobody else looks.',
}
const BANS = [
  { selector: 'TSEnumDeclaration', message: 'No enum: a const array and a union of its members.' },
  { selector: 'ExportDefaultDeclaration', message: 'No default exports.' },
  { selector: 'TSModuleDeclaration[kind=namespace]', message: 'No namespace.' },
]

export default defineConfig(
  // Examples are packages of their own, whose imports are there when they have been installed.
  { ignores: ['**/gen/**', '**/*.js', '**/*.cjs', '**/*.mjs', 'examples/**'] },
  {
    basePath: root,
    files: ['**/*.ts'],
    extends: [typescript.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: root } },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      'no-restricted-syntax': ['error', ...BANS, ENVIRONMENT],
      'max-params': ['error', { max: 5 }],
      eqeqeq: 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      // Contract methods are async by type, whether they wait or not.
      '@typescript-eslint/require-await': 'off',
      // `return print(x)` is shorter than two statements, and says nothing wrong.
      '@typescript-eslint/no-confusing-void-expression': 'off',
      // A callback may be async or not.
      '@typescript-eslint/no-invalid-void-type': 'off',
      // Every index may be out of range to the compiler, and process.getuid missing; where the code knows better it may say so.
      '@typescript-eslint/no-non-null-assertion': 'off',
      // Commander's methods return `this`, and are called on what is known as the base class.
      '@typescript-eslint/no-unsafe-class-instance-assignment': 'off',
    },
  },
  {
    basePath: root,
    files: ['src/daemon/config.ts', 'src/cli/main.ts', 'src/daemon/main.ts', 'src/daemon/launcher.ts', 'test/**', 'bench/**', '**/*.test.ts'],
    rules: { 'no-restricted-syntax': ['error', ...BANS] },
  },
  {
    basePath: root,
    files: ['src/plugins/*/**'],
    ignores: ['src/plugins/storage-*/**', 'src/plugins/contract/**', '**/*.test.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [{ regex: '^(node:)?(fs|child_process|net|http)(/.*)?$', message: 'A plugin touches the machine through Host only.' }],
        },
      ],
    },
  },
  {
    // What a test may do that a program may not: look into what it knows to be there, and hand over half an object.
    basePath: root,
    files: ['test/**', 'bench/**', '**/*.test.ts'],
    rules: {
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/unbound-method': 'off',
      'max-params': 'off',
    },
  },
)

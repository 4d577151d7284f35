// Who may import whom, for dependency-cruiser. Type-only imports count: a plugin that knows a daemon type knows the daemon.
const unitTest = '[.]test[.]ts$'

const only = (name, from, to, comment) => ({
  name,
  comment,
  severity: 'error',
  from: { path: from, pathNot: unitTest },
  to: { pathNot: to, dependencyTypesNot: ['core', 'npm'] },
})

module.exports = {
  forbidden: [
    only('contract-is-a-leaf', '^src/plugins/contract/', '^src/plugins/contract/', 'The contract knows nobody.'),
    only(
      'plugin-sees-contract',
      '^src/plugins/([a-z0-9-]+)/',
      ['^src/plugins/contract/', '^src/plugins/$1/'],
      'A plugin knows the contract and itself. Need another runtime? host.delegate.',
    ),
    {
      name: 'plugin-door',
      comment: 'Enter a plugin by its plugin.ts.',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/plugins/[a-z0-9-]+/' },
      to: { path: '^src/plugins/(?!contract/|conformance/)[a-z0-9-]+/', pathNot: '/plugin[.]ts$' },
    },
    only('addon-is-a-leaf', '^addon/', '^addon/', 'The native wrapper knows nobody.'),
    {
      name: 'addon-door',
      comment: 'Only daemon/host speaks to the kernel.',
      severity: 'error',
      from: { pathNot: '^(addon|src/daemon/host|test|bench)/' },
      to: { path: '^addon/' },
    },
    only(
      'cli-sees-api',
      '^src/cli/',
      ['^src/cli/', '^src/daemon/(api/|(config|main|plugins/(store|author|available))[.]ts$)', '^src/plugins/((index|matrix|description|packages)[.]ts$|contract/)'],
      'The cli reaches the daemon by gRPC only.',
    ),
    {
      name: 'cli-starts-daemon-lazily',
      comment: 'daemon start and --no-server need the composition root; every other command must not pay for it.',
      severity: 'error',
      from: { path: '^src/cli/', pathNot: unitTest },
      to: { path: '^src/daemon/(main|plugins/(store|author|available))[.]ts$', dependencyTypesNot: ['dynamic-import', 'type-only'] },
    },
    {
      name: 'api-on-top',
      comment: 'Operations never see the wire.',
      severity: 'error',
      from: { path: '^src/daemon/(?!api/|main[.]ts)' },
      to: { path: '^src/daemon/api/' },
    },
    {
      name: 'catalog-at-the-root',
      comment: 'Only entry points know the built-ins.',
      severity: 'error',
      from: { pathNot: ['^(src/((daemon|cli)/main|daemon/launcher|testing)[.]ts$|test/|bench/)', unitTest] },
      to: { path: '^src/plugins/index[.]ts$' },
    },
    {
      name: 'nothing-needs-tests',
      severity: 'error',
      from: { path: '^(src|addon)/', pathNot: unitTest },
      to: { path: '^(test|bench)/' },
    },
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    { name: 'no-orphans', severity: 'error', from: { orphan: true, pathNot: '[.]d[.]ts$' }, to: {} },
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    detectProcessBuiltinModuleCalls: true,
    // Without these a door of a package that is only in its "exports" is not found.
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default'] },
  },
}

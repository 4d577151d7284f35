/** Completion scripts. All three ask `cedana __complete WORD…`, whose last line says what kind of thing fits beside the words. */

const bash = `# bash completion for cedana
_cedana() {
  local word="\${COMP_WORDS[COMP_CWORD]}" out kind
  out="$("\${COMP_WORDS[0]}" __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" || return
  kind="\${out##*:}"
  [[ "$word" == = ]] && word=
  COMPREPLY=()
  while IFS=$'\\t' read -r candidate _; do
    [[ -n "$candidate" && "$candidate" != :* && "$candidate" == "$word"* ]] && COMPREPLY+=("$candidate")
  done <<<"$out"
  if [[ "$kind" == files ]]; then
    compopt -o filenames 2>/dev/null
    while IFS= read -r candidate; do COMPREPLY+=("$candidate"); done < <(compgen -f -- "$word")
  fi
}
complete -F _cedana cedana
`

const zsh = `#compdef cedana
_cedana() {
  local -a candidates
  local line kind
  for line in "\${(@f)$(\${words[1]} __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    if [[ "$line" == :* ]]; then
      kind="\${line#:}"
    elif [[ -n "$line" ]]; then
      candidates+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
    fi
  done
  (( \${#candidates} )) && _describe -t cedana cedana candidates
  [[ "$kind" == files ]] && _files
}
if [[ "$funcstack[1]" == _cedana ]]; then _cedana "$@"; else compdef _cedana cedana; fi
`

const fish = `# fish completion for cedana
function __cedana_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l out ($words[1] __complete -- $words[2..-1] 2>/dev/null)
    for line in $out
        string match -q ':*' -- $line; or echo $line
    end
    if contains -- ':files' $out
        __fish_complete_path (commandline -ct)
    end
end
complete -c cedana -f -a '(__cedana_complete)'
`

export const SCRIPTS = { bash, zsh, fish } as const
export const SHELLS = ['bash', 'zsh', 'fish'] as const

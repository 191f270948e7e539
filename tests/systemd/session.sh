# One shell session over several calls: exported variables and the directory stay.
kept=$HOME/.session
[ ! -e "$kept" ] || . "$kept"
. "$1"
{
    export -p
    printf 'cd %q\n' "$PWD"
} >"$kept"

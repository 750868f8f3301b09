# Builds one program from the C file $src.
. "$common"

mkdir -p "$out/bin"
compile -O2 $includes "$src" -o "$out/bin/$program" $links

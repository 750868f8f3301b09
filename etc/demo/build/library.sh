# Builds one shared library from $src, runs its check, and installs header and library.
. "$common"

headers=
if [ -n "${generated:-}" ]; then
    headers="-I$generated"
fi
objects=
for file in "$src"/*.c; do
    unit=$(basename "$file" .c)
    if [ "$unit" != check ]; then
        compile -O2 -fPIC -I"$src" $headers $includes -c "$file" -o "$unit.o"
        objects="$objects $unit.o"
    fi
done
mkdir -p "$out/lib" "$out/include"
cp "$src"/*.h "$out/include"
compile -shared -o "$out/lib/lib$library.so" $objects $links

if [ -e "$src/check.c" ]; then
    compile -O1 -I"$src" $includes "$src/check.c" -o check -L"$out/lib" -Wl,-rpath,"$out/lib" -l"$library" $links
    ./check
fi

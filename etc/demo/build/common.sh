# What every builder here starts with: the compiler's flags for the libraries this one needs.
export PATH=/usr/bin:/bin
export LC_ALL=C

includes=
links=
for dependency in ${libraries:-}; do
    includes="$includes -I$dependency/include"
    for file in "$dependency"/lib/lib*.so; do
        soname=$(basename "$file" .so)
        links="$links -L$dependency/lib -Wl,-rpath,$dependency/lib -l${soname#lib}"
    done
done

compile() {
    echo "cc $*"
    gcc -std=c11 -Wall -Wextra -Werror "$@"
}

# Runs $script with the programs of $tools on the search path.
. "$common"

for tool in ${tools:-}; do
    PATH="$tool/bin:$PATH"
done
eval "$script"

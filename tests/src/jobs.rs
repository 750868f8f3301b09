//! Nix expressions for tests.

/// Gives a `release.nix` for these attributes. They may use:
///
/// - `job NAME SCRIPT`: a derivation that runs a shell script with the computer's tools on its search path;
/// - `gate NAME`: a piece of script that comes to a gate (see [`Gates`](crate::Gates)) and waits until it is open;
/// - `compile NAME SOURCE`: a derivation of a C program, `$out/bin/NAME`.
pub fn jobs(attributes: &str) -> String {
    format!(
        r#"let
  job = name: script: derivation {{
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-e" "-c" "export PATH=/bin LC_ALL=C\n${{script}}" ];
  }};
  gate = name: ''
    echo reached >> /gates/${{name}}.reached
    while ! [ -e /gates/${{name}}.open ]; do sleep 0.05; done
  '';
  compile = name: source: job name ''
    mkdir -p $out/bin
    gcc -O1 -Wall ${{builtins.toFile "${{name}}.c" source}} -o $out/bin/${{name}}
  '';
in rec {{
{attributes}
}}
"#
    )
}

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

/// Attributes for [`jobs`]: `large-1`, a large output that does not compress, behind the gate `large`, and `second-1`, which refers to it.
pub const LARGE_AND_SECOND: &str = r#"
  large = job "large-1" ''
    ${gate "large"}
    dd if=/dev/zero bs=1M count=20 | openssl enc -aes-128-ctr -nosalt -out $out \
      -K 00112233445566778899aabbccddeeff -iv 00112233445566778899aabbccddeeff
  '';
  second = job "second-1" "mkdir $out; echo ${large} > $out/needs";
"#;

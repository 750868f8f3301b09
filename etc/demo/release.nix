# The jobs of the demonstration: small libraries and programs in C that need each other's outputs, several levels deep.
#
# The compiler comes from the machine that builds (sandbox-paths in its nix.conf), so that nothing has to be downloaded.
# hauberk.priority: 0 is the most urgent, 9 the least. meta.timeout and meta.maxSilent are seconds.
{ system ? builtins.currentSystem }:

let
  common = ./build/common.sh;

  job = { priority ? 5, meta ? { }, ... }@arguments:
    derivation ({
      inherit system common;
      builder = "/bin/sh";
    } // removeAttrs arguments [ "priority" "meta" ])
    // { inherit meta; hauberk = { inherit priority; }; };

  library = name: { libraries ? [ ], ... }@arguments:
    job ({
      name = "lib${name}-1.0";
      library = name;
      src = ./src + "/${name}";
      args = [ "-e" ./build/library.sh ];
    } // arguments);

  program = name: { ... }@arguments:
    job ({
      name = "${name}-1.0";
      program = name;
      src = ./src/programs + "/${name}.c";
      args = [ "-e" ./build/program.sh ];
    } // arguments);

  script = name: { ... }@arguments:
    job ({
      inherit name;
      args = [ "-e" ./build/script.sh ];
    } // arguments);

  libraries = rec {
    bytes = library "bytes" { priority = 1; };
    bits = library "bits" { libraries = [ bytes ]; priority = 1; };
    checksum = library "checksum" { generated = generated.tables; priority = 2; };
    window = library "window" { libraries = [ bytes ]; priority = 2; };
    huffman = library "huffman" { libraries = [ bytes bits ]; priority = 2; };
    pack = library "pack" { libraries = [ bytes checksum window huffman ]; priority = 3; };
    tree = library "tree" { };
    opcodes = script "libopcodes-1.0" {
      generated = generated.opcodes;
      objects = builtins.attrValues objects;
      priority = 4;
      script = ''
        mkdir -p $out/lib $out/include
        cp $generated/opcodes.h $out/include
        compile -O1 -fPIC -I$generated -c $generated/table.c -o table.o
        compile -shared table.o $(printf '%s/opcodes.o ' $objects) -o $out/lib/libopcodes.so
      '';
    };
  };

  generated = {
    # Sources written by programs that are built first.
    tables = script "tables" {
      priority = 1;
      src = ./src/tables/tables.c;
      script = ''
        compile -O1 $src -o tables
        mkdir $out
        ./tables > $out/tables.h
        wc -l $out/tables.h
      '';
    };
    opcodes = script "opcodes" {
      priority = 4;
      src = ./src/opcodes/generate.c;
      script = ''
        compile -O1 $src -o generate
        mkdir $out
        cd $out
        $NIX_BUILD_TOP/generate 8 350
        wc -c $out/*
      '';
    };
    corpus = script "corpus" {
      priority = 6;
      tools = [ programs.mill ];
      script = ''
        mkdir $out
        for seed in 1 2 3 4 5 6 7 8; do
          mill $seed 1200000 > $out/chapter-$seed.txt
          wc $out/chapter-$seed.txt
        done
      '';
    };
  };

  # The big library is compiled in parts, which several workers can do at once.
  objects = builtins.listToAttrs (map
    (part: {
      name = "opcodes-${part}";
      value = script "opcodes-${part}.o" {
        generated = generated.opcodes;
        inherit part;
        priority = 4;
        script = ''
          mkdir $out
          compile -O2 -fPIC -I$generated -c $generated/opcodes$part.c -o $out/opcodes.o
        '';
      };
    })
    [ "0" "1" "2" "3" "4" "5" "6" "7" ]);

  programs = {
    pak = program "pak" { libraries = [ libraries.bytes libraries.pack ]; priority = 3; };
    digest = program "digest" { libraries = [ libraries.bytes libraries.checksum ]; priority = 3; };
    concord = program "concord" { libraries = [ libraries.tree ]; };
    mill = program "mill" { src = ./src/mill/mill.c; priority = 6; };
    machine = program "machine" { src = ./src/opcodes/machine.c; libraries = [ libraries.opcodes ]; priority = 4; };
  };

  checks = {
    round-trip = script "check-round-trip" {
      tools = [ programs.pak ];
      inherit (generated) corpus;
      priority = 7;
      script = ''
        for file in $corpus/*.txt; do
          pak pack $file packed
          pak unpack packed again
          cmp $file again
        done
        # One wrong byte must be noticed.
        printf x | dd of=packed bs=1 seek=2000 conv=notrunc 2> dd.log
        ! pak unpack packed again
        touch $out
      '';
    };
    digests = script "check-digests" {
      tools = [ programs.digest ];
      inherit (generated) corpus;
      priority = 7;
      script = ''
        cd $corpus
        digest *.txt > $out
        sha256sum --check $out
      '';
    };
    words = script "check-words" {
      tools = [ programs.concord ];
      inherit (generated) corpus;
      priority = 7;
      script = ''
        cat $corpus/*.txt | concord > counted
        cat $corpus/*.txt | tr -cs a-z '\n' | grep . | sort | uniq -c | sed 's/^ *//' > expected
        cmp counted expected
        sort -rn counted | sed -n 1,20p
        cp counted $out
      '';
    };
    processor = script "check-processor" {
      tools = [ programs.machine ];
      priority = 7;
      script = "machine 5000 > $out; cat $out";
    };
  };

  archive = script "archive" {
    tools = [ programs.pak programs.digest ];
    inherit (generated) corpus;
    priority = 7;
    script = ''
      mkdir $out
      for file in $corpus/*.txt; do
        pak pack $file $out/$(basename $file .txt).pak
      done
      cd $out
      digest *.pak > $NIX_BUILD_TOP/digests
      cp $NIX_BUILD_TOP/digests $out/digests
    '';
  };

  broken = rec {
    # Fails in its own check; what needs it can never be built.
    parser = script "parser-1.0" {
      src = ./src/broken/parser.c;
      script = ''
        compile -O1 $src -o parser
        ./parser
        mkdir -p $out/bin
        cp parser $out/bin
      '';
    };
    calculator = script "calculator-1.0" { tools = [ parser ]; script = "parser > $out"; };
    manual = script "calculator-manual-1.0" { inherit calculator; script = "cat $calculator > $out"; };
  };

  endless = {
    # Talks for ever: its timeout ends it.
    talker = script "talker" {
      priority = 8;
      meta.timeout = 6;
      script = "while true; do echo still here; sleep 1; done";
    };
    # Says nothing for too long.
    sleeper = script "sleeper" {
      priority = 8;
      meta.maxSilent = 4;
      script = "echo good night; sleep 1000";
    };
  };

  # Everything that works, in one closure: what a user of the farm would fetch.
  image = script "image-1.0" {
    programs = builtins.attrValues programs;
    checks = builtins.attrValues checks;
    inherit archive;
    priority = 9;
    script = ''
      mkdir -p $out/bin $out/share/checks
      for directory in $programs; do
        ln -s $directory/bin/* $out/bin/
      done
      for file in $checks; do
        ln -s $file $out/share/checks/$(basename $file | cut -d- -f2-)
      done
      ln -s $archive $out/share/archive
      cp -rL $archive/digests $out/share/digests
      (cd $out/share/archive && sha256sum --check $out/share/digests)
      ls -lR $out
    '';
  };

  # Says that the set holds jobs, too: their names are libraries.bytes and so on.
  jobs = set: set // { recurseForDerivations = true; };
in
{
  inherit archive image;
  libraries = jobs libraries;
  generated = jobs generated;
  objects = jobs objects;
  programs = jobs programs;
  checks = jobs checks;
  broken = jobs broken;
  endless = jobs endless;
}

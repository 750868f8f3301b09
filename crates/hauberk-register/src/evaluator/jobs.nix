# Lists the jobs of an expression: one attribute set for each, with a derivation path or an error.
#
# parameters (JSON): file, the expression; arguments for it, if it is a function; inputs, which it gets as paths if it
# names them; systems, each of which it is called with, or null. What is asked: only, an attribute path to evaluate
# without catching its error; or names, the path of a set whose attributes to list; or paths, where to look for jobs,
# [ [ ] ] being everywhere. Those not asked are null.
{ parameters }:

let
  inherit (builtins)
    attrNames concatLists concatStringsSep deepSeq fromJSON functionArgs intersectAttrs isAttrs isFunction isInt
    isString length mapAttrs toJSON tryEval typeOf unsafeDiscardStringContext;

  given = fromJSON parameters;
  value = import (/. + given.file);
  formals = functionArgs value;
  inputs = intersectAttrs formals (mapAttrs (name: path: /. + path) given.inputs);

  call = extra: if isFunction value then value (inputs // given.arguments // extra) else value;

  isDerivation = value: isAttrs value && (value.type or null) == "derivation";

  name = concatStringsSep ".";

  number = value: if isInt value then value else null;

  # What a derivation says about itself; forced whole, so that its errors come here.
  describe = path: suffix: value:
    let
      meta = value.meta or { };
      described = {
        name = name (path ++ suffix);
        drvPath = unsafeDiscardStringContext value.drvPath;
        priority = number (value.hauberk.priority or null);
        schedulingPriority = number (meta.schedulingPriority or null);
        timeout = number (meta.timeout or null);
        maxSilent = number (meta.maxSilent or null);
      };
    in
    deepSeq described described;

  failure = path: suffix: error: [{ name = name (path ++ suffix); inherit path suffix error; }];

  # At the top an error is the whole expression's, and ends the program.
  attempt = path: value: if path == [ ] then { success = true; inherit value; } else tryEval value;

  # What became of an attempt: its value, used, or the error entry.
  caught = path: suffix: result: use:
    if result.success then use result.value else failure path suffix null;

  walk = path: suffix: value:
    caught path suffix (attempt path (if isDerivation value then "derivation" else typeOf value)) (type:
      if type == "derivation" then
        caught path suffix (attempt path (describe path suffix value)) (job: [ job ])
      else if type == "set" then
        caught path suffix (attempt path (path == [ ] || (value.recurseForDerivations or false) == true)) (descend:
          if descend then
            concatLists (map
              (attribute: walk (path ++ [ attribute ]) suffix value.${attribute})
              (builtins.filter (attribute: attribute != "recurseForDerivations") (attrNames value)))
          else
            [ ])
      else if type == "null" || type == "lambda" then
        [ ]
      else
        failure path suffix "is a ${type}, not a derivation");

  roots =
    if given.systems == null then [{ suffix = [ ]; value = call { }; }]
    else map (system: { suffix = [ system ]; value = call { inherit system; }; }) given.systems;

  # What is at a path, in a list, or nothing if it is not there.
  at = path: value:
    if path == [ ] then [ value ]
    else if value ? ${builtins.head path} then at (builtins.tail path) value.${builtins.head path}
    else [ ];

  jobs = paths:
    concatLists (map
      (root: concatLists (map
        (path: concatLists (map (walk path root.suffix) (at path root.value)))
        paths))
      roots);

  # One job, whose error is to end the program and so to be told.
  loud = { path, suffix }:
    concatLists (map
      (root:
        if root.suffix != suffix then [ ]
        else map
          (value: describe path suffix value)
          (builtins.filter isDerivation (at path root.value)))
      roots);

  # The attributes of a set that is searched for jobs; none of anything else. They are not evaluated.
  members = path: value:
    if isAttrs value && !isDerivation value && (path == [ ] || (value.recurseForDerivations or false) == true)
    then removeAttrs value [ "recurseForDerivations" ]
    else { };
  names = path:
    attrNames (builtins.foldl'
      (all: root: builtins.foldl' (all: value: all // members path value) all (at path root.value))
      { }
      roots);
in
if given.only != null then loud given.only
else if given.names != null then names given.names
else jobs given.paths

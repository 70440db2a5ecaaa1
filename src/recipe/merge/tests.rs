use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::base::error::Error;
use crate::recipe::tests::{Place, job, refusal};
use crate::recipe::{
    Action, Answers, AxisValue, BranchFailure, BranchTree, Branches, Job, Request, TreeKind, load, load_each,
};

const TREE: &str = "[source]\nstage3 = 'amd64-musl'\n[portage]\nrepositories = ['repo']\n[build]\nprofile = 'main:base'\n\
                    [vars]\nV = 'root'\nW = 'root'\n";

/// A tree of `p`, a stage4, and `p/c`.
fn tree() -> Place {
    let place = Place::new();
    place.write("quern-tree.toml", format!("{TREE}[tree]\nname = 'hello'\njobs = 3\n"));
    let parent = "[build]\nkind = 'stage4'\nepoch = 7\n[vars]\nV = 'parent'\n[portage]\nuse = ['nls']\n\
                  [emerge]\npackages = ['a/b']\n[strip]\npaths = ['/x']\n[[step]]\nname = 's'\nrun = 'true'\n\
                  [ask.box]\nquestion = 'Box'\ndefault = 'mine'\n";
    place.write("p/quern.toml", parent);
    place
}

fn child(place: &Place, text: &str) -> Job {
    place.write("p/c/quern.toml", text);
    job(&place.request(&["p/c/quern.toml"]))
}

#[test]
fn an_image_has_the_source_and_the_variables_of_the_one_above_but_not_its_steps() {
    let place = tree();
    let step = "[[step]]\nname = 'c'\nrun = 'true'\nvars = ['V', 'W', 'box', 'image', 'tree', 'path']\n";
    let job = child(&place, step);
    let parent = job.from.as_deref().unwrap();
    assert_eq!(parent.origin, place.path().canonicalize().unwrap().join("p/quern.toml"));
    assert_eq!((parent.job.path.as_str(), job.path.as_str(), job.name.as_str()), ("hello/p", "hello/p/c", "c"));
    assert_eq!((parent.job.emerge.packages.len(), parent.job.build.epoch), (1, Some(7)));
    assert_eq!(parent.job.build.outdir, place.path().join("out/hello"));
    assert_eq!((parent.job.jobs_images, job.jobs_images), (Some(3), Some(3)));
    assert_eq!(job.build.outdir, place.path().join("out/hello/p"));
    assert_eq!((job.build.kind, job.build.epoch, job.publish), (TreeKind::Stage4, None, true));
    assert_eq!((&job.source, &job.portage.make_conf), (&parent.job.source, &parent.job.portage.make_conf));
    assert!(job.emerge.packages.is_empty() && job.strip.paths.is_empty());
    let env: Vec<String> = job.steps[0].env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["V=parent", "W=root", "box=mine", "image=c", "path=p/c", "tree=hello"]);
    assert_eq!(job.steps.len(), 1);
}

#[test]
fn a_recipe_without_a_tree_can_start_from_another() {
    let place = Place::new();
    let base = TREE.replace("[build]", "[build]\nkind = 'stage4'");
    place.write("base.toml", format!("{base}[[step]]\nname = 'b'\nrun = 'true'\n"));
    place.write("sub/one.toml", "from = '../base.toml'\n[[step]]\nname = 'one'\nrun = 'true'\n");
    let job = job(&place.request(&["sub/one.toml"]));
    assert_eq!(job.from.unwrap().job.name, "base");
    assert_eq!((job.name.as_str(), job.path.as_str()), ("one", "one"));
    assert_eq!(job.build.outdir, place.path().join("sub/out"));
    assert!(matches!(job.steps[0].action, Action::Run(_)));
}

#[test]
fn mistakes_between_recipes_are_refused() {
    let place = tree();
    for (text, said) in [
        ("[source]\nstage3 = 'amd64-openrc'\n", "an image that starts from another one has the stage3 of that one"),
        ("[tree]\nname = 'x'\n", "`[tree]` is for the file quern-tree.toml"),
        ("from = '../../nope'\n", "it does not exist"),
        ("from = '.'\n", "images start from each other in a cycle"),
        ("[tree]\njobs = 4\n", "`[tree]` is for the file quern-tree.toml"),
        ("include = ['more.toml']\n", "`from` is for the recipe of an image"),
        ("[emerge]\npackages = ['not an atom']\n", "not a valid package"),
    ] {
        place.write("p/c/more.toml", "from = '../quern.toml'\n");
        place.write("p/c/quern.toml", text);
        let refused = refusal(&place.request(&["p/c/quern.toml"]));
        assert!(refused.contains(said), "{text}: {refused}");
    }
    // The mistakes of the recipe above are its own.
    place.write("p/c/quern.toml", "");
    place.write("p/quern.toml", "[emerge]\npackages = ['not an atom']\n");
    assert!(refusal(&place.request(&["p/c/quern.toml"])).contains("p/quern.toml"));
    place.write("p/quern.toml", "[build]\nkind = 'image'\n[emerge]\npackages = []\n");
    place.write("p/c/quern.toml", "[build]\nkind = 'stage4'\n");
    assert!(refusal(&place.request(&["p/c/quern.toml"])).contains("a stage4 cannot start from the image hello/p"));
    place.write("quern-tree.toml", format!("name = 'x'\n{TREE}"));
    assert!(refusal(&place.request(&["p/quern.toml"])).contains("the names of their directories"));
}

#[test]
fn an_image_on_the_layers_of_its_parent_has_the_settings_of_its_image() {
    let place = tree();
    let parent = fs_err::read_to_string(place.path().join("p/quern.toml")).unwrap();
    place.write("p/quern.toml", format!("{parent}[oci]\ntag = 'v1'\nuser = 'me'\ncuts = ['s']\n"));
    assert_eq!(child(&place, "").oci, None);
    let own = child(&place, "[oci]\nuser = 'you'\n").oci.unwrap();
    assert_eq!((own.tag.as_str(), own.on_parent), ("{date}", false));
    let on_parent = child(&place, "[oci]\non-parent = true\nuser = 'you'\n").oci.unwrap();
    assert_eq!((on_parent.tag.as_str(), on_parent.user.as_deref()), ("v1", Some("you")));
    assert!(on_parent.on_parent && on_parent.cuts.is_empty());
    let alone = "[build]\nkind = 'image'\n[emerge]\npackages = ['a/b']\n[oci]\non-parent = true\n";
    place.write("p/c/quern.toml", alone);
    assert!(
        refusal(&place.request(&["p/c/quern.toml"])).contains("the layers of hello/p cannot be those of this image")
    );
    place.write("p/c/quern.toml", "");
    // In the file of the tree, it is for the images that start from another one.
    place.write("quern-tree.toml", format!("{TREE}[tree]\nname = 'hello'\n[oci]\non-parent = true\n"));
    assert!(child(&place, "").oci.unwrap().on_parent);
    assert!(job(&place.request(&["p/quern.toml"])).from.is_none());
    place.write(
        "p/quern.toml",
        format!("{parent}[build]\ncompression = 'xz'\n").replace("[build]\nkind = 'stage4'\nepoch = 7\n", ""),
    );
    assert!(refusal(&place.request(&["p/c/quern.toml"])).contains("compressed with xz"));
}

#[test]
fn an_image_knows_those_that_it_needs() {
    let place = tree();
    place.write("p/a/quern.toml", "[volume.v]\nat = '/v'\n[ask.own]\nquestion = 'Own'\ndefault = 'x'\n");
    place.write("p/b/quern.toml", "needs = ['../a']\n");
    let job = child(
        &place,
        "needs = ['../b', '../a/quern.toml']\n[volume.v]\nat = '/w'\nof = '../a'\n\
                             [[step]]\nname = 'c'\nrun = 'true'\nvolumes = ['v']\n",
    );
    let names: Vec<&str> = job.needs.iter().map(|other| other.job.path.as_str()).collect();
    assert_eq!(names, ["hello/p/b", "hello/p/a"]);
    assert_eq!(job.needs[0].job.needs[0].origin, job.needs[1].origin);
    let others: Vec<&str> = job.others().map(|other| other.job.path.as_str()).collect();
    assert_eq!(others, ["hello/p", "hello/p/b", "hello/p/a"]);
    let volumes: Vec<_> =
        job.volumes_of_others().into_iter().map(|(name, other)| (name, other.job.name.as_str())).collect();
    assert_eq!(volumes, [("v", "a")]);
    assert_eq!(child(&place, "[volume.v]\nat = '/w'\nof = '../a'\n").needs.len(), 1, "a volume needs its image");
    assert!(child(&place, "[[step]]\nname = 'c'\nrun = 'true'\n").needs.is_empty());

    place.write("p/d/quern.toml", "needs = ['../c']\n");
    for (text, said) in [
        ("needs = ['nope']\n", "cannot find an image that is needed"),
        ("needs = ['']\n", "an image that is needed has no name"),
        ("needs = ['.']\n", "images need each other in a cycle"),
        ("needs = ['../d']\n", "images need each other in a cycle"),
        ("[volume.v]\nat = '/w'\nof = '../c'\n", "images need each other in a cycle"),
        ("[[step]]\nname = 'c'\nrun = 'true'\nvars = ['own']\nneeds = ['../a']\n", "needs"),
    ] {
        place.write("p/c/quern.toml", text);
        let refused = refusal(&place.request(&["p/c/quern.toml"]));
        assert!(refused.contains(said), "{text}: {refused}");
    }
    // An image cannot need one that starts from it, nor give a volume another state.
    place.write("p/c/quern.toml", "");
    place.write("p/quern.toml", "needs = ['c']\n");
    assert!(refusal(&place.request(&["p/quern.toml"])).contains("in a cycle"));
    assert!(refusal(&place.request(&["p/c/quern.toml"])).contains("in a cycle"));
    let step = "[volume.v]\nat = '/v'\n[[step]]\nname = 's'\nrun = 'true'\nvolumes = ['v']\n";
    place.write("p/quern.toml", step);
    place.write("other/quern.toml", step);
    place.write(
        "p/c/quern.toml",
        format!("[volume.v]\nof = '../../other'\n{}", step.replace("[volume.v]\nat = '/v'\n", "")),
    );
    assert!(refusal(&place.request(&["p/c/quern.toml"])).contains("the volume v has a state in the image"));
    place.write("quern-tree.toml", format!("needs = ['p']\n{TREE}"));
    assert!(refusal(&place.request(&["p/quern.toml"])).contains("`needs` is for the recipe of an image"));
}

#[test]
fn options_and_answers_reach_the_recipes_that_have_them() {
    let place = tree();
    place.write(
        "p/c/quern.toml",
        "[ask.own]\nquestion = 'Own'\n[[step]]\nname = 'c'\nrun = 'true'\nvars = ['box', 'own']\n",
    );
    let mut request = place.request(&["p/c/quern.toml"]);
    request.answers = Answers(
        [("box", "yours"), ("own", "1")]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned().into()))
            .collect(),
    );
    request.sets = vec!["step.c.skip=false".to_owned(), "vars.V=set".to_owned(), "emerge.packages=['x/y']".to_owned()];
    let loaded = load(&request).unwrap();
    assert_eq!(loaded.job.steps[0].env["box"], "yours");
    assert_eq!(loaded.answers.len(), 2);
    let parent = &loaded.job.from.as_ref().unwrap().job;
    assert_eq!((loaded.job.emerge.packages.len(), &parent.emerge.packages[..]), (1, &["a/b".to_owned()][..]));
    request.answers.0.insert("bx".to_owned(), "1".to_owned().into());
    assert!(refusal(&request).contains("the recipe does not ask for"));
}

#[test]
fn the_missing_answers_of_all_recipes_are_in_one_error() {
    let place = Place::new();
    place.write("quern-tree.toml", TREE);
    let ask = |name: &str| format!("[ask.{name}]\nquestion = 'The {name}'\n[build]\nkind = 'stage4'\n");
    place.write("p/quern.toml", ask("box"));
    place.write("p/c/quern.toml", format!("needs = ['../../other', '..']\n{}", ask("own")));
    place.write("other/quern.toml", ask("third"));
    let (files, shown) = (["p/quern.toml", "p/c/quern.toml", "other/quern.toml"], ["box", "own", "third"]);
    let all = |refused: &str, count: &str| {
        assert!(refused.contains(count), "{refused}");
        for name in shown {
            assert_eq!(refused.matches(&format!("no answer to `{name}`")).count(), 1, "{refused}");
        }
    };
    all(&refusal(&place.request(&["p/c/quern.toml"])), "reading the recipe p/c/quern.toml: 3 mistakes");
    let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
    let each = |request: &Request| load_each(request, &files, &mut crate::recipe::ask::Nobody);
    let mut request = place.request(&[]);
    let error = each(&request).unwrap_err();
    all(&format!("{error}{}", error.details().unwrap()), "reading the recipes of 3 images: 3 mistakes");
    // A mistake of a recipe comes with the answers that it and the others lack.
    place.write("p/c/quern.toml", format!("needs = ['../../other']\nname = '/'\n{}", ask("own")));
    all(&refusal(&place.request(&["p/c/quern.toml"])), "4 mistakes");
    place.write("p/c/quern.toml", ask("own"));
    request.answers.0.extend(shown.map(|name| (name.to_owned(), "yes".to_owned().into())));
    assert_eq!(each(&Request { shared: true, ..request }).unwrap().len(), 3);
}

/// A tree of tuples with the fragments of the axes `a` and `b`.
fn tuples(fragments: &[(&str, &str)]) -> Place {
    let place = Place::new();
    let axes = "[axis.b]\nfrom = 'b'\n[axis.a]\nfrom = 'a'\n[[tuple]]\na = ['1', '2']\nb = ['x', 'y']\n";
    place.write("quern-tree.toml", format!("{TREE}{axes}"));
    for name in ["a/1", "a/2", "b/x", "b/y"] {
        place.write(&format!("{name}.toml"), "");
    }
    fragments.iter().for_each(|(name, text)| place.write(&format!("{name}.toml"), text));
    place
}

#[test]
fn tuples_are_images_of_their_tree() {
    let place = tuples(&[("b/x", "[[step]]\nname = 's'\nrun = 'true'\nvars = ['a', 'b', 'image', 'path', 'V']\n")]);
    place.write("p/quern.toml", "");
    place.write("quern.toml", "");
    let names: Vec<_> = crate::recipe::images(place.path(), false)
        .unwrap()
        .into_iter()
        .map(|file| file.strip_prefix(place.path()).unwrap().to_owned())
        .collect();
    // The order is that of the axes in the file, and a value of the first axis comes first.
    let expected = ["quern.toml", "p/quern.toml", "x-1", "x-2", "y-1", "y-2"];
    assert_eq!(names, expected.map(std::path::Path::new));
    assert!(crate::recipe::images(&place.path().join("p"), false).unwrap().len() == 1);
    let job = job(&place.request(&["x-2"]));
    let env: Vec<String> = job.steps[0].env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["V=root", "a=2", "b=x", "image=x-2", "path=x-2"]);
    assert!(job.from.is_none() && job.path.ends_with("/x-2"));
    let refused = refusal(&place.request(&["x-3"]));
    assert!(refused.contains("the tree has no such tuple") && refused.contains("did you mean x-1?"), "{refused}");
    for set in ["type=host", "axis.a.from=b", "tuple=[]", "override=true"] {
        let mut request = place.request(&["x-1"]);
        request.sets.push(set.to_owned());
        assert!(refusal(&request).contains("is for recipe files"), "{set}");
    }
    place.write("quern-tree.toml", format!("{TREE}a = '1'\n[axis.a]\nfrom = 'a'\n[[tuple]]\na = '1'\n"));
    assert!(refusal(&place.request(&["1"])).contains("every tuple has this variable"));
}

#[test]
fn fragments_are_united() {
    let of = |one: &str, other: &str| {
        let place = tuples(&[("b/x", one), ("a/1", other)]);
        job(&place.request(&["x-1"]))
    };
    let step = |line: &str| format!("[[step]]\nname = 's'\n{line}\n");
    let made = of(&step("run = 'true'"), &step("timeout = '1h'"));
    assert_eq!((made.steps.len(), made.steps[0].timeout), (1, Some(3600)));
    let made = of("[portage]\nuse = ['-*', 'a']", "[portage]\nuse = ['a', 'b']");
    assert_eq!(made.portage.make_conf["USE"], "-* a b");
    let made = of("[portage]\npackage-mask = ['a/b']", "[portage]\npackage-mask = ['a/b', 'c/d']");
    assert_eq!(made.portage.package_files["package.mask"], ["a/b", "c/d"]);
    let made = of("[sets]\ns = ['a/b']\n[emerge]\njobs = 2", "[sets]\ns = ['c/d']\n[emerge]\njobs = 2");
    assert_eq!((made.portage.sets["s"].len(), made.emerge.jobs), (2, 2));
    // The tree itself is replaced, as by any recipe.
    let made = of("[vars]\nV = 'x'", "");
    assert_eq!(made.build.kind, TreeKind::Image);
}

#[test]
fn fragments_that_contradict_each_other_are_refused() {
    for (one, other, said) in [
        ("[portage]\nuse = ['a']", "[portage]\nuse = ['-*']", "`a` and `-*` in portage.use"),
        ("[portage]\nuse = ['-a']", "[portage]\nuse = ['a']", "`-a` and `a` in portage.use"),
        ("[system]\nservices = ['a']", "[system]\nservices = ['-a', 'b']", "`a` and `-a` in system.services"),
        ("[emerge]\njobs = 2", "[emerge]\njobs = 3", "two values of `emerge.jobs`"),
        ("[emerge]\noptions = ['-v']", "[emerge]\noptions = ['-q']", "two values of `emerge.options`"),
        (
            "[portage]\npackage-use = { 'a/b' = 'X: c -d' }",
            "[portage]\npackage-use = ['a/b X: d']",
            "`-X:d` and `X:d` in portage.package-use of a/b",
        ),
        ("[[step]]\nname = 's'\nrun = 'a'", "[[step]]\nname = 's'\nrun = 'b'", "two values of `step.s.run`"),
        (
            "[portage]\npackage-mask = ['>=a/b-3', 'c/d']",
            "[portage]\npackage-unmask = { '>=a/b-3' = '' }",
            "`>=a/b-3` in portage.package-mask and `>=a/b-3` in portage.package-unmask",
        ),
        (
            "[portage]\nuse = ['x', 'a']",
            "[portage]\nmake-conf = { USE = '-a b' }",
            "`a` in portage.use and `-a` in portage.make-conf.USE",
        ),
        (
            "[portage.make-conf]\nUSE = 'a'",
            "[portage]\nuse = ['-*', 'c']",
            "`a` in portage.make-conf.USE and `-*` in portage.use",
        ),
    ] {
        let place = tuples(&[("b/x", one), ("a/1", other)]);
        let refused = refusal(&place.request(&["x-1"]));
        assert!(refused.contains(said) && refused.contains("b/x.toml:") && refused.contains("a/1.toml:"), "{refused}");
        for (winner, text) in [("b/x", one), ("a/1", other)] {
            place.write(&format!("{winner}.toml"), format!("override = true\n{text}"));
            job(&place.request(&["x-1"]));
            place.write(&format!("{winner}.toml"), text);
        }
    }
    // The word of the other fragment is gone.
    let place = tuples(&[
        ("b/x", "override = true\n[portage]\nuse = ['a']\npackage-mask = ['a/b']"),
        ("a/1", "[portage]\nmake-conf = { USE = '-a b' }\npackage-unmask = ['a/b', 'c/d']"),
    ]);
    let made = job(&place.request(&["x-1"])).portage;
    assert_eq!(made.make_conf["USE"], "b a");
    assert_eq!(
        (&made.package_files["package.mask"], &made.package_files["package.unmask"]),
        (&vec!["a/b".to_owned()], &vec!["c/d".to_owned()])
    );
    // Portage reads `use` after make.conf, so a flag after `-*` contradicts nothing.
    let place = tuples(&[("b/x", "[portage]\nuse = ['a']"), ("a/1", "[portage]\nmake-conf = { USE = '-*' }")]);
    assert_eq!(job(&place.request(&["x-1"])).portage.make_conf["USE"], "-* a");
    // Two winners are none.
    let place =
        tuples(&[("b/x", "override = true\n[emerge]\njobs = 2"), ("a/1", "override = true\n[emerge]\njobs = 3")]);
    assert!(refusal(&place.request(&["x-1"])).contains("two values of `emerge.jobs`"));
}

#[test]
fn a_builder_has_one_image_for_each_configuration_of_the_tuples() {
    let place = tuples(&[
        ("b/x", "[portage.make-conf]\nCFLAGS = '-O1'\n"),
        ("a/1", "[emerge]\npackages = ['a/b', 'c/d']\n[strip]\ndoc = true\n"),
        ("a/2", "[emerge]\npackages = ['c/d']\nbinary-only = true\n[[step]]\nname = 's'\nemerge = ['e/f']\n"),
    ]);
    place.write("builder/quern.toml", "tuples = 'all'\n[build]\nkind = 'stage4'\n[emerge]\njobs = 3\n");
    let builder = job(&place.request(&["builder/quern.toml"]));
    assert!(!builder.publish && builder.from.is_none());
    let names: Vec<&str> = builder.configurations.iter().map(|one| one.job.name.as_str()).collect();
    assert_eq!(names, ["x-1", "y-1"]);
    let one = &builder.configurations[0].job;
    assert_eq!(one.emerge.packages, ["a/b", "c/d", "e/f"]);
    assert_eq!((one.emerge.binary_only, one.emerge.jobs, one.publish, one.steps.len()), (false, 3, false, 0));
    assert_eq!(one.from.as_ref().map(|parent| parent.job.name.as_str()), Some("builder"));
    assert!(builder.configurations[0].origin.ends_with("builder/x-1"));
    // Mistakes of a tuple are those of its own recipe.
    place.write("b/y.toml", "[emerge]\njobs = 'x'\n");
    assert!(refusal(&place.request(&["builder/quern.toml"])).contains("b/y.toml:2"));
}

/// A git repository in the directory `config`, with the branches `server`, `feature/x` and `large`.
#[derive(Debug)]
struct Fake(PathBuf);

impl Branches for Fake {
    fn tree(&self, directory: &Path, name: &str) -> Result<BranchTree, BranchFailure> {
        assert_eq!(directory, self.0.join("config"));
        match name {
            "server" | "feature/x" => Ok(BranchTree { commit: "c0ffee".to_owned(), path: self.0.join("files") }),
            "large" => Err(BranchFailure::Tree(Error::refused("too large"))),
            _ => Err(BranchFailure::Missing { help: "those that are there".to_owned() }),
        }
    }
}

#[test]
fn branches_of_git_are_values_of_an_axis() {
    let place = Place::new();
    let axis = "[axis.portage]\nfrom = { git = 'config' }\n";
    let with = |tuple: &str| {
        place.write("quern-tree.toml", format!("{TREE}{axis}[[tuple]]\nname = 't'\nportage = '{tuple}'\n"));
        let branches: Rc<dyn Branches> = Rc::new(Fake(place.path().to_owned()));
        Request { branches: Some(branches), ..place.request(&["t"]) }
    };
    place.write("files/package.use/a", "a/b x\n");
    for branch in ["server", "feature/x"] {
        let job = job(&with(branch));
        assert_eq!(job.portage.config_files["package.use"], ["a/b x"]);
        let AxisValue::Branch { branch: name, commit } = &job.axes["portage"] else { panic!("{:?}", job.axes) };
        assert_eq!((name.as_str(), commit.as_str()), (branch, "c0ffee"));
        assert_eq!(job.portage.config, Some(place.path().join("files")));
    }
    for (branch, said) in [
        ("sever", "no such branch"),
        ("sever", "those that are there"),
        ("large", "cannot use the branch `large`"),
        ("../../x", "the axis `portage` has no value"),
        ("-x", "must not start with `-`"),
        ("main:package.use", "must not contain `:`"),
    ] {
        let refused = refusal(&with(branch));
        assert!(refused.contains(said), "{branch}: {refused}");
    }
    assert!(refusal(&place.request(&["t"])).contains("no store"));
}

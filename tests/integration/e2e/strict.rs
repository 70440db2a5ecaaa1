//! The recipe's own profile, package files and date as the real Portage sees them; two packages with the same file; warnings about the
//! image and the compiler.

use std::path::Path;

use super::listing::content;
use super::{EPOCH, Stand, text};
use crate::env::{Privilege, twins};

twins!(portage_reads_what_a_recipe_says => root_portage_reads_what_a_recipe_says, userns_portage_reads_what_a_recipe_says);

fn portage_reads_what_a_recipe_says(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\nprofile-formats = portage-2\n");
    let mut stand = stand.with_own_packages().with_repositories(&[&overlay]);
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    stand.env.write("overlay/profiles/extra/make.defaults", "USE=\"by-extra\"\n");
    stand.env.write("overlay/profiles/extra/eapi", "8\n");
    let body = "IUSE=\"by-extra\"\nRDEPEND=\"app-own/absent\"\nsrc_install() {\n\tinsinto /usr/share/told\n\
                \tnewins - use <<<\"$(usev by-extra)\"\n\tnewins - cflags <<<\"${CFLAGS}\"\n\
                \tnewins - built <<<\"${SOURCE_DATE_EPOCH}\"\n\tdobin /bin/true\n}\n\
                pkg_preinst() {\n\techo \"${SOURCE_DATE_EPOCH}\" > \"${ED}/usr/share/told/merged\"\n}\n";
    stand.ebuild("app-own", "told", body);
    let recipe = stand.env.write(
        "told.toml",
        r#"
        [source]
        stage3 = "amd64-musl"
        [portage]
        package-provided = ["app-own/absent-1"]
        package-env = ["app-own/told debug"]
        env = { debug = { CFLAGS = "${CFLAGS} -Og" } }
        [build]
        profile = ["gentoo:default/linux/amd64/23.0/musl", "own:extra"]
        profile-packages = ["app-own/told"]
        "#,
    );
    let made = stand.build(&recipe).success();
    let told = |tarball: &Path, file: &str| content(tarball, &format!("usr/share/told/{file}"));
    let tarball = &made.results()[0];
    assert_eq!(told(tarball, "use"), "by-extra\n");
    assert!(told(tarball, "cflags").ends_with(" -Og\n"), "{}", told(tarball, "cflags"));
    assert_eq!((told(tarball, "built"), told(tarball, "merged")), (format!("{EPOCH}\n"), format!("{EPOCH}\n")));
    assert!(
        made.stderr.contains("/usr/bin/true needs /lib") && made.stderr.contains("virtual/libc"),
        "{}",
        made.stderr
    );
    assert!(!made.stderr.contains("has no compiler"), "{}", made.stderr);

    if privilege == Privilege::Root {
        a_binary_package_has_the_date_of_its_merge(&mut stand, &recipe);
        two_packages_with_the_same_file(&stand);
    }
}

/// A binary package replays the environment that it was built in, except the date.
fn a_binary_package_has_the_date_of_its_merge(stand: &mut Stand, recipe: &Path) {
    stand.env.set("SOURCE_DATE_EPOCH", "1800000000");
    let again = stand.build(recipe).success();
    let tarball = &again.results()[0];
    assert!(again.stderr.contains("app-own/told-1 (") && again.stderr.contains("binary)"), "{}", again.stderr);
    let told = |file: &str| content(tarball, &format!("usr/share/told/{file}"));
    assert_eq!((told("built"), told("merged")), (format!("{EPOCH}\n"), "1800000000\n".to_owned()));
}

/// While a package is in its preinst phase, Portage does not know its files yet. If the other package were merged meanwhile, both would be.
fn two_packages_with_the_same_file(stand: &Stand) {
    for name in ["one", "two"] {
        let body = format!(
            "src_install() {{\n\tinsinto /usr/share\n\tnewins - same <<<{name}\n}}\npkg_preinst() {{\n\tsleep 4\n}}\n"
        );
        stand.ebuild("app-own", name, &body);
    }
    let packages = "[emerge]\njobs = 2\npackages = [\"app-own/one\", \"app-own/two\"]\n";
    let recipe = stand.recipe("same", &format!("baselayout-atoms = []\n{packages}"));
    // The cache has packages of another CHOST.
    let sets = ["--set", "portage.make-conf.CHOST=riscv64-unknown-linux-gnu", "--set", "portage.binpkg-shared=true"];
    let told = stand.env.run([&["build", text(&recipe)], &sets[..]].concat()).code(1);
    assert!(told.stderr.contains("/usr/share/same"), "{}", told.stderr);
    let compiler = "CHOST is riscv64-unknown-linux-gnu, but the builder has no compiler for it";
    assert!(told.stderr.contains(compiler), "{}", told.stderr);
}

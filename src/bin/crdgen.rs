//! Prints every CustomResourceDefinition into the folder given as the first argument, a file each.

use ollama_fleet_operator::api::crd;
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder: PathBuf = env::args_os().nth(1).ok_or("usage: crdgen FOLDER")?.into();
    fs::create_dir_all(&folder)?;
    for definition in crd::all() {
        // Through JSON first, so that maps come out in one stable order.
        let text = serde_saphyr::to_string(&serde_json::to_value(&definition)?)?;
        fs::write(folder.join(crd::file_name(&definition)), text)?;
    }
    Ok(())
}

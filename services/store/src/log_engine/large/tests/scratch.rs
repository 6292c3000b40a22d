use super::*;
use holdfast_runtime::DIRECT_ALIGNMENT_BYTES;
use std::time::Instant;

fn real(root: &std::path::Path) -> Arc<LargeFiles> {
    fs::create_dir_all(root.join(DIRECTORY)).unwrap();
    let disk = Arc::new(Disk::new(Runtime::real(), root.to_owned(), 0));
    Arc::new(LargeFiles::new(disk, 1))
}

#[allow(clippy::all)]
#[test]
#[ignore]
fn bench() {
    let root = std::env::temp_dir().join("holdfast-scratch-c");
    let _ = fs::remove_dir_all(&root);
    let files = real(&root);
    let data = payload(64 * MIB);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut storage = vec![0u8; MIB + 4096];
    let start = storage.as_ptr().align_offset(DIRECT_ALIGNMENT_BYTES);
    storage[start..start + MIB].copy_from_slice(&data[..MIB]);
    let bare = || {
        let path = root.join("bare");
        let t = Instant::now();
        let file = Runtime::real().files().create_direct(&path).unwrap().unwrap();
        for k in 0..64 {
            file.write_all_at(&storage[start..start + MIB], k * MIB as u64).unwrap();
        }
        file.sync_data().unwrap();
        let e = t.elapsed();
        drop(file);
        fs::remove_file(&path).unwrap();
        e.as_secs_f64() * 1e3
    };
    let ours = |size: usize, chunk_bytes: usize| {
        let files = &files;
        let data = data.slice(..size);
        runtime.block_on(async {
            let files = files.clone();
            tokio::spawn(async move {
                let t = Instant::now();
                let mut staging = LargeStaging::new(&files);
                for chunk in data.chunks(chunk_bytes) {
                    staging.write(data.slice_ref(chunk)).await.unwrap();
                }
                let staged = staging.finish().await.unwrap();
                let stat = stat(staged.size_bytes(), staged.digest());
                let id = staged.complete(name("a"), stat).await.unwrap().keep();
                let e = t.elapsed();
                files.remove(id).unwrap();
                e.as_secs_f64() * 1e3
            })
            .await
            .unwrap()
        })
    };
    let (mut a, mut b, mut c, mut r) = (vec![], vec![], vec![], vec![]);
    for _ in 0..25 {
        let x = bare();
        let y = ours(64 * MIB, 65_536);
        a.push(x);
        b.push(y);
        r.push(x / y);
        c.push(ours(200_000, 65_536));
    }
    for v in [&mut a, &mut b, &mut c, &mut r] {
        v.sort_by(f64::total_cmp);
    }
    let q = |v: &Vec<f64>| {
        format!(
            "min {:.2} p25 {:.2} median {:.2} p75 {:.2}",
            v[0],
            v[v.len() / 4],
            v[v.len() / 2],
            v[v.len() * 3 / 4]
        )
    };
    println!("bare ms   {}\nours ms   {}\n200kB ms  {}\nratio     {}", q(&a), q(&b), q(&c), q(&r));
    let _ = fs::remove_dir_all(&root);
}

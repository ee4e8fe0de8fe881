package e2e

// Certificates are kept over restarts, and replaced when they are of no use.

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestDamagedAndExpiringCertificates(t *testing.T) {
	dir := t.TempDir()
	i := startReady(t, dir)
	i.kubectl(t, "create", "namespace", "kept")
	i.terminate(t)
	before := read(t, i.kubeconfig())
	ca := read(t, filepath.Join(dir, "pki", "ca.crt"))

	// The server's certificate is cut off, the admin's has a day left.
	if err := os.Truncate(filepath.Join(dir, "pki", "apiserver.crt"), 100); err != nil {
		t.Fatal(err)
	}
	shortenLife(t, filepath.Join(dir, "pki"), "admin", 24*time.Hour)

	i = startReady(t, dir)
	i.kubectl(t, "get", "namespace", "kept")
	if read(t, i.kubeconfig()) == before {
		t.Error("the kubeconfig still has the old certificate")
	}
	if read(t, filepath.Join(dir, "pki", "ca.crt")) != ca {
		t.Error("the CA was replaced without need")
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "pki", "admin.crt"), filepath.Join(dir, "pki", "admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(pair.Leaf.NotAfter); left < 100*24*time.Hour {
		t.Errorf("the admin's new certificate ends in %s", left)
	}
	i.terminate(t)
}

// shortenLife issues a certificate again, with the same key and a new end.
func shortenLife(t *testing.T, dir, name string, left time.Duration) {
	t.Helper()
	ca, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name+".crt")
	pair, err := tls.LoadX509KeyPair(file, filepath.Join(dir, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	template := *pair.Leaf
	template.SerialNumber = big.NewInt(1)
	template.NotAfter = time.Now().Add(left)
	der, err := x509.CreateCertificate(rand.Reader, &template, ca.Leaf, pair.Leaf.PublicKey, ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

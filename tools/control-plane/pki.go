package main

// This file makes the certificates and keys of the cluster and the kubeconfig
// of its admin. They are kept over restarts, so that a kubeconfig handed out
// once stays good. It must not know who uses them.

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	certLifetime = 365 * 24 * time.Hour
	// A certificate with less than this left is replaced at start.
	renewBefore = 30 * 24 * time.Hour
)

// pki names the files. Each certificate file has a key file beside it.
type pki struct {
	caCert                string
	serverCert, serverKey string
	adminCert, adminKey   string
	serviceAccountKey     string
}

// ensurePKI makes what is missing, damaged, or about to expire. A new CA makes
// the other certificates new as well, since they no longer chain to it.
func ensurePKI(dir string, serviceIP net.IP) (*pki, error) {
	now := time.Now()
	p := &pki{
		caCert:            filepath.Join(dir, "ca.crt"),
		serverCert:        filepath.Join(dir, "apiserver.crt"),
		serverKey:         filepath.Join(dir, "apiserver.key"),
		adminCert:         filepath.Join(dir, "admin.crt"),
		adminKey:          filepath.Join(dir, "admin.key"),
		serviceAccountKey: filepath.Join(dir, "service-account.key"),
	}
	ca, err := ensureCert(p.caCert, filepath.Join(dir, "ca.key"), nil, now, &x509.Certificate{
		Subject:               pkix.Name{CommonName: "control-plane-ca"},
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	})
	if err != nil {
		return nil, err
	}
	if _, err := ensureCert(p.serverCert, p.serverKey, ca, now, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		NotAfter:    now.Add(certLifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), serviceIP},
		DNSNames: []string{
			"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local",
		},
	}); err != nil {
		return nil, err
	}
	if _, err := ensureCert(p.adminCert, p.adminKey, ca, now, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "control-plane-admin", Organization: []string{"system:masters"}},
		NotAfter:    now.Add(certLifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return nil, err
	}
	return p, ensureKey(p.serviceAccountKey)
}

// ensureCert loads a pair and keeps it if it is sound, else makes a new one
// from the template. A nil issuer means self-signed.
func ensureCert(certFile, keyFile string, issuer *tls.Certificate, now time.Time, template *x509.Certificate) (*tls.Certificate, error) {
	if pair, err := tls.LoadX509KeyPair(certFile, keyFile); err == nil && sound(pair.Leaf, issuer, now) {
		return &pair, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = now.Add(-time.Hour) // clocks differ
	parent, signer := template, crypto.PrivateKey(key)
	if issuer != nil {
		parent, signer = issuer.Leaf, issuer.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("cannot make %s: %w", certFile, err)
	}
	// The key first: a crash in between leaves a pair that does not match, which
	// the next start replaces.
	if err := writeKey(keyFile, key); err != nil {
		return nil, err
	}
	if err := replaceFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	return &pair, err
}

func sound(cert *x509.Certificate, issuer *tls.Certificate, now time.Time) bool {
	if now.Before(cert.NotBefore) || now.Add(renewBefore).After(cert.NotAfter) {
		return false
	}
	return issuer == nil || cert.CheckSignatureFrom(issuer.Leaf) == nil
}

func ensureKey(file string) error {
	if content, err := os.ReadFile(file); err == nil {
		if block, _ := pem.Decode(content); block != nil {
			if _, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
				return nil
			}
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return writeKey(file, key)
}

func writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return replaceFile(file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

// writeKubeconfig writes the admin's kubeconfig, with everything in one file so
// that it can be copied. It is rewritten only if it changes.
func (p *pki) writeKubeconfig(path string, port int) error {
	const name = "control-plane"
	cluster := clientcmdapi.NewCluster()
	user := clientcmdapi.NewAuthInfo()
	for file, into := range map[string]*[]byte{
		p.caCert:    &cluster.CertificateAuthorityData,
		p.adminCert: &user.ClientCertificateData,
		p.adminKey:  &user.ClientKeyData,
	} {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		*into = content
	}
	cluster.Server = fmt.Sprintf("https://127.0.0.1:%d", port)

	config := clientcmdapi.NewConfig()
	config.Clusters[name] = cluster
	config.AuthInfos[name+"-admin"] = user
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name + "-admin"}
	config.CurrentContext = name
	content, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return replaceFile(path, content)
}
